"""Verdicts on the paper's five claims, computed from held-out scores by one rule.

A claim is a set of statements about two predictors, a and b, and the mean of a score over the held-out lesion images
that both have scored. Each statement is answered from the mean difference a - b, its 95 % bootstrap interval (`low` to
`high`) and the p-value of Wilcoxon's test after Holm's correction over all pairs of the family:

=============  =========================================  ======================================================
statement      yes                                        no
=============  =========================================  ======================================================
a beats b      `low` > 0 and p < `ALPHA`                  otherwise, `high` < `MARGIN`: no advantage that matters
a and b alike  -`MARGIN` < `low` and `high` < `MARGIN`    the interval lies beyond `MARGIN` on one side, p < `ALPHA`
=============  =========================================  ======================================================

A statement is open where neither holds, or where one of the two has no run. The claim is

- upheld, if every statement is answered as the claim says;
- not upheld, if at least one is answered the other way;
- undecided at this size, otherwise.

"Does not beat" is "beats" with yes and no exchanged. The statements of each claim are in ``claims.yaml``. Claims 1 to 4
are judged by Dice. Claim 5 is judged by accuracy. It asks about two predictors, the darkest blob and the baseline
network, and of these only about the ones that find lesions: their Dice is higher than the constant predictor's by more
than `MARGIN`, with the whole interval. Each of them has to beat the constant, which finds no lesion, in accuracy too.
"""

from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

from busi.config import Parameters
from busi.published import distinct_rows, published_tables, table_number
from busi.report.findings import agree, name_blind_runs
from busi.report.heldout import Answers, count_runs, find_baseline
from busi.results import NotMeasured, read_findings, record_finding
from busi.scoring import statistics
from busi.scoring.predictors import BLOB, CONSTANT

ALPHA = 0.05
"""Significance level of the corrected tests."""

MARGIN = 0.02
"""Smallest difference in a mean score, from 0 to 1, that matters: a choice of this study, and a matter of judgement."""

NETWORK = "Baseline network"
"""Name of the network with the held-out protocol's own settings, of which every held-out variant is a change."""

UPHELD = "upheld"
NOT_UPHELD = "not upheld"
UNDECIDED = "undecided at this size"

_COMPARISON = (
    "{a} − {b}: {difference:+.3f} {score} (95 % interval {low:+.3f} to {high:+.3f}; {significance} after Holm; "
    "{n_images} images)"
)

_PROSE = (
    "Claim {number} (section {section}): *{claim}* **{capitalized}.** {evidence}\n\n"
    "Published, on training images: {published}. Here, on images never trained on: {ours}."
)


class Comparison(NamedTuple):
    """Mean of a - b over the images that both predictors have scored, its 95 % interval, and p after Holm."""

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    n_images: int
    score: str = "Dice"

    def __str__(self) -> str:
        """Return the comparison in words, with its numbers."""
        # With four decimals, a p-value that is merely small would be shown as zero.
        significance = "p < 0.0001" if self.p < 0.0001 else f"p = {self.p:.4f}"
        return _COMPARISON.format(significance=significance, **self._asdict())


@dataclass(frozen=True)
class Verdict:
    """Verdict on one claim, with the published numbers, ours, and the comparisons that decide, all in words."""

    number: int
    section: str
    claim: str
    published: str
    ours: str
    verdict: str
    evidence: str

    @property
    def prose(self) -> str:
        """Return the verdict with its evidence as a paragraph of Markdown, then both answers as another."""
        return _PROSE.format(capitalized=self.verdict.capitalize(), **asdict(self))


def beats(comparison: Comparison) -> bool | None:
    """Return whether a beats b by the module's rule; None where that is open."""
    if comparison.low > 0 and comparison.p < ALPHA:
        return True
    return False if comparison.high < MARGIN else None


def does_not_beat(comparison: Comparison) -> bool | None:
    """Return whether a does not beat b by the module's rule; None where that is open."""
    answer = beats(comparison)
    return None if answer is None else not answer


def alike(comparison: Comparison) -> bool | None:
    """Return whether a and b are alike by the module's rule; None where that is open."""
    # Differences smaller than the margin count as none, even if a test can tell them from zero.
    if comparison.low > -MARGIN and comparison.high < MARGIN:
        return True
    beyond = comparison.low > MARGIN or comparison.high < -MARGIN
    return False if beyond and comparison.p < ALPHA else None


# Claim 5 asks of accuracy what the others ask of Dice.
_RULES = {"better": beats, "no better": does_not_beat, "alike": alike, "telling": beats}


def decide(answers: list[bool | None]) -> str:
    """Return the verdict on a claim from the answers to its statements; without any it is undecided."""
    if False in answers:
        return NOT_UPHELD
    # `all` of nothing is true, and a claim that nothing speaks for is not upheld.
    return UPHELD if answers and all(answers) else UNDECIDED


@cache
def read_claims() -> dict[int, dict]:
    """Read the claims by number from ``claims.yaml``."""
    return yaml.safe_load(Path(__file__).with_name("claims.yaml").read_text(encoding="utf-8"))


def same_variants(family: str) -> dict[str, str]:
    """Return published method -> held-out variant of the same settings, where the two have different names."""
    return read_claims()[table_number(family)].get("same", {})


def find_comparison(pairs: pd.DataFrame, a: str, b: str, score: str = "Dice") -> Comparison | None:
    """Return the comparison of a with b from a table of `busi.scoring.statistics.compare_pairs`, in either order."""
    for row in pairs.itertuples():
        if (row.a, row.b) == (a, b):
            return Comparison(a, b, row.difference, row.low, row.high, row.p_holm, row.n_images, score)
        # Seen from the other side, the difference changes its sign and the interval swaps its ends.
        if (row.a, row.b) == (b, a):
            return Comparison(a, b, -row.difference, -row.high, -row.low, row.p_holm, row.n_images, score)
    return None


def judge(answers: Answers) -> Verdict:
    """Return the verdict on the claim about a family, by Dice."""
    number = table_number(answers.family)
    claim = read_claims()[number]
    if claim["test"] == "alike":
        # Planned variants: a pair that waits for its runs leaves the claim open.
        labels = list(answers.group.variants)
        pairs = list(combinations(labels, 2))
    else:
        labels = [claim["variant"], *claim["than"]]
        pairs = [(claim["variant"], other) for other in claim["than"]]
    comparisons = [find_comparison(answers.pairs, a, b) for a, b in pairs]
    remarks = [name_blind_runs(answers.blind), _describe_progress([answers]), claim.get("aside", "")]
    ours = _describe_dice(answers.table, labels)
    return _conclude(number, comparisons, published=_describe_rows(answers.family), ours=ours, remarks=remarks)


def judge_accuracy(families: list[Answers]) -> Verdict:
    """Return the verdict on claim 5, by accuracy, from the held-out answers of all families."""
    images = {label: scored.images for label, scored in families[0].untrained.items()}
    baseline = find_baseline(families)
    if baseline:
        images[NETWORK] = baseline.images
    dice = statistics.compare_pairs(images, "dice")
    accuracy = statistics.compare_pairs(images, "accuracy")
    # Holm's correction covers all pairs, so that both tables hold the predictors that are not asked about, too.
    comparisons = []
    for label in (BLOB, NETWORK):
        finds = find_comparison(dice, label, CONSTANT)
        # A network without a run leaves the claim open. A predictor that finds no lesion says nothing about accuracy.
        if finds is None or finds.low > MARGIN:
            comparisons.append(find_comparison(accuracy, label, CONSTANT, "accuracy"))
    # The normal images have no Dice, and would raise the accuracy of a predictor that finds nothing.
    means = []
    for label, table in images.items():
        lesions = statistics.lesion_images(table)
        means.append(f"{label} has Dice {lesions.dice.mean():.3f} and accuracy {lesions.accuracy.mean():.3f}")
    remarks = [_describe_progress(families)]
    return _conclude(5, comparisons, published=_describe_extremes(), ours="; ".join(means), remarks=remarks)


def record_verdict(parameters: Parameters, verdict: Verdict) -> None:
    """Write a verdict into the report's ``findings.json``, for the summary."""
    # JSON takes only text as a key.
    facts = {str(verdict.number): asdict(verdict)}
    record_finding(parameters, "claims", **facts)


def read_verdicts(parameters: Parameters) -> pd.DataFrame:
    """Return all five recorded verdicts: `claim`, `published`, `ours`, `verdict`, `evidence`, as text.

    Raises:
        NotMeasured: A claim has not been judged yet.
    """
    recorded = read_findings(parameters).get("claims", {})
    for number in read_claims():
        if str(number) not in recorded:
            raise NotMeasured(f"claim {number}: not judged yet; run the report's notebooks in order, or make study")
    table = pd.DataFrame([recorded[str(number)] for number in read_claims()])
    table["claim"] = table.number.astype(str) + ". " + table.claim
    return table[["claim", "published", "ours", "verdict", "evidence"]]


def count_verdicts(verdicts: pd.DataFrame) -> str:
    """Return how many claims are upheld, not upheld and undecided, and which; of a table of `read_verdicts`."""
    numbers = verdicts.claim.str.partition(".")[0]
    parts = []
    for verdict in (UPHELD, NOT_UPHELD, UNDECIDED):
        chosen = numbers[verdicts.verdict == verdict]
        if len(chosen):
            verb = agree(len(chosen), "is", "are")
            parts.append(f"{len(chosen)} {verb} {verdict} ({', '.join(chosen)})")
    return f"Of the paper's {len(verdicts)} claims, {'; '.join(parts)}."


def _conclude(
    number: int, comparisons: list[Comparison | None], *, published: str, ours: str, remarks: list[str]
) -> Verdict:
    """Return the verdict that the comparisons of a claim lead to."""
    claim = read_claims()[number]
    rule = _RULES[claim["test"]]
    answers = [rule(comparison) if comparison else None for comparison in comparisons]
    known = [comparison for comparison in comparisons if comparison]
    missing = len(comparisons) - len(known)
    if not known:
        sentences = ["There is nothing to compare yet."]
    elif claim["test"] == "alike":
        sentences = _describe_alike(known)
    else:
        sentences = [f"{comparison}: {_read(comparison)}." for comparison in known]
    if known and missing:
        waiting = agree(missing, "comparison waits", "comparisons wait")
        sentences.append(f"{missing} {waiting} for runs.")
    return Verdict(
        number=number,
        section=claim["section"],
        claim=claim["claim"],
        published=published,
        ours=ours,
        verdict=decide(answers),
        evidence=" ".join(sentences + [remark for remark in remarks if remark]),
    )


def _describe_alike(comparisons: list[Comparison]) -> list[str]:
    answers = [alike(comparison) for comparison in comparisons]
    within = answers.count(True)
    beyond = answers.count(False)
    is_alike = agree(within, "is alike", "are alike")
    differs = agree(beyond, "differs", "differ")
    # Of dozens of pairs only the widest is told with its numbers; the table of pairs has them all.
    widest = max(comparisons, key=lambda comparison: abs(comparison.difference))
    return [
        f"Of {len(comparisons)} pairs {within} {is_alike} within ±{MARGIN} and {beyond} {differs} by more.",
        f"The widest: {widest}.",
    ]


def _read(comparison: Comparison) -> str:
    """Return what a comparison says about a, in a word or two."""
    answer = beats(comparison)
    if answer is None:
        return "not told apart"
    if answer:
        return "better"
    # No better is not worse: that takes an interval below zero and a test that agrees.
    if comparison.high < 0 and comparison.p < ALPHA:
        return "worse"
    return f"not better by {MARGIN} or more"


def _describe_progress(families: list[Answers]) -> str:
    finished, planned = count_runs(families)
    return f"Provisional: {finished} of {planned} planned runs are there." if finished < planned else ""


def _describe_dice(table: pd.DataFrame, labels: list[str]) -> str:
    # Untrained predictors are in the table too; the claim is about the variants that it names.
    rows = table.set_index("variant").loc[labels]
    scored = rows[rows.n_runs > 0].itertuples()
    means = [f"{row.Index} has Dice {row.dice:.3f} ({row.dice_low:.3f} to {row.dice_high:.3f})" for row in scored]
    return "; ".join(means) or "nothing has been scored yet"


def _describe_rows(family: str) -> str:
    """Return the numbers of a family's published rows."""
    rows = published_tables()[table_number(family)]["rows"].items()
    numbers = [f"{name} has accuracy {row['accuracy']:.4f} and AUC {row['auc']:.4f}" for name, row in rows]
    return "; ".join(numbers)


def _describe_extremes() -> str:
    """Return the extremes of all published rows."""
    rows = distinct_rows()
    spans = []
    for column, word in (("accuracy", "accuracy"), ("auc", "AUC"), ("loss", "loss")):
        spans.append(f"{word} {rows[column].min():.4f} to {rows[column].max():.4f}")
    return f"{', '.join(spans)} in {len(rows)} rows"
