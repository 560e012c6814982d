"""Verdicts on the paper's five claims, computed from held-out scores by one rule.

A claim is a set of statements about two predictors, a and b. Claims 1 to 4 are about the mean Dice over the held-out
lesion images. Each statement is answered from the mean difference a - b, its 95 % interval over images and training
(`low` to `high`) and its p value after Holm's correction over all pairs of the family:

=============  =========================================  ======================================================
statement      yes                                        no
=============  =========================================  ======================================================
a beats b      `low` > 0 and p < `ALPHA`                  otherwise, `high` < `MARGIN`: no advantage that matters
a and b alike  -`MARGIN` < `low` and `high` < `MARGIN`    the interval lies beyond `MARGIN` on one side, p < `ALPHA`
=============  =========================================  ======================================================

"Does not beat" is "beats" with yes and no exchanged. Where a and b are one function by proof, neither beats the other,
whatever was measured.

Claim 5 is about the three published metrics. Each of them ranks the pairs of predictors, networks and untrained ones
alike, that Dice tells apart (their interval excludes 0). The statement "the metric tells segmenters apart" is yes if it
ranks at least `TELLING` of them as Dice does (a tie does not), otherwise no; open with fewer than `ENOUGH` pairs.

A statement is open where neither yes nor no holds, where one of the two has no run, or where there is one pair of runs
in all: its interval is over images alone, and another training may say otherwise. The claim is

- upheld, if every statement is answered as the claim says;
- not upheld, if at least one is answered the other way;
- undecided, otherwise.

The statements of each claim are in ``claims.yaml``. Each verdict names the size at which it was reached. At the
profile's second size, the statements about the variants trained there are judged again.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

from busi.config import Parameters
from busi.published import distinct_rows, published_tables, table_number
from busi.report.findings import agree, name_runs, with_noun
from busi.report.heldout import ALIVE, SAME, VARIANTS, Answers, count_runs
from busi.results import NotMeasured, read_findings, record_finding
from busi.scoring.predictors import CONSTANT
from busi.scoring.statistics import Interval, format_interval

ALPHA = 0.05
"""Significance level of the corrected tests."""

MARGIN = 0.02
"""Smallest difference in a mean score, from 0 to 1, that matters: a choice of this study, and a matter of judgement."""

TELLING = 0.95
"""Share of the pairs that Dice tells apart which a metric has to rank as Dice does: wrong at most once in twenty."""

ENOUGH = 20
"""Number of such pairs from which on a metric is judged: with fewer, one alone is more than once in twenty."""

ONCE = 1
"""Number of runs from which nothing is known about how training varies; runs of other folds are other trainings."""

UPHELD = "upheld"
NOT_UPHELD = "not upheld"
UNDECIDED = "undecided"

METRICS = {"accuracy": ("accuracy", 1), "auc_pooled": ("pooled AUC", 1), "loss": ("loss", -1)}
"""Columns of the published metrics in ``heldout.csv``: their names, and 1 where more is better."""


class Comparison(NamedTuple):
    """Mean difference a - b in Dice over images that both have scored, its 95 % interval, and p after Holm."""

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    n_images: int
    p_t: float = float("nan")
    n_runs: int = 0

    @property
    def short(self) -> str:
        """Return the comparison in words, with its interval."""
        return f"{self.a} − {self.b} {self.difference:+.3f} Dice ({self.low:+.3f} to {self.high:+.3f})"

    def __str__(self) -> str:
        """Return the comparison in words, with its interval and tests."""
        # With four decimals, a p value that is merely small would be shown as zero.
        significance = "p < 0.0001" if self.p < 0.0001 else f"p = {self.p:.4f}"
        corrected = "" if pd.isna(self.p_t) else f"; corrected resampled t, uncorrected for pairs: p = {self.p_t:.2f}"
        return f"{self.short}, {significance} after Holm{corrected}; {self.n_images} images"


@dataclass(frozen=True)
class Judgement:
    """A claim at one size: its verdict, what decides it in a few words, and all the evidence in sentences."""

    size: str
    verdict: str
    reason: str
    evidence: str


@dataclass(frozen=True)
class Verdict:
    """Verdict on one claim at the profile's size and, unless that is None, at its second one; all in words."""

    number: int
    section: str
    claim: str
    published: str
    ours: str
    first: Judgement
    second: Judgement | None = None

    @property
    def title(self) -> str:
        """Return the verdict in words, e.g. "KLD is not the best loss"; figures and cards have it as their title."""
        return read_claims()[self.number]["says"][self.first.verdict]

    @property
    def sentence(self) -> str:
        """Return the verdicts at all sizes, each with its size and what decides it, in one sentence of Markdown."""
        parts = [f"Claim {self.number} is **{self.first.verdict}** at {self.first.size}: {self.first.reason}"]
        if self.second:
            parts.append(f"**{self.second.verdict}** at {self.second.size}: {self.second.reason}")
        return f"{'; '.join(parts)}."

    @property
    def short(self) -> str:
        """Return the verdict as a card: the verdict on the claim, then its title and what decides it, in Markdown."""
        judged = f"**{self.first.verdict.capitalize()}:** {self.claim}"
        return f"{judged}\n\n{self.title}. At {self.first.size}: {self.first.reason}."

    @property
    def prose(self) -> str:
        """Return the verdict with its evidence, then both answers, as paragraphs of Markdown."""
        paragraphs = [f"Claim {self.number} (section {self.section}): *{self.claim}*", self.sentence]
        paragraphs += [f"At {judged.size}: {judged.evidence}" for judged in (self.first, self.second) if judged]
        both = f"Published, on training images: {self.published}. Here, on images never trained on: {self.ours}."
        return "\n\n".join([*paragraphs, both])

    @property
    def row(self) -> dict[str, str | int]:
        """Return the row of ``claims.csv``."""
        row = asdict(self) | {"title": self.title, "sentence": self.sentence}
        first, second = row.pop("first"), row.pop("second") or dict.fromkeys(asdict(self.first), "")
        return row | first | {f"second_{name}": value for name, value in second.items()}


def beats(comparison: Comparison) -> bool | None:
    """Return whether a beats b by the module's rule; None where that is open."""
    if comparison.n_runs == ONCE:
        return None
    if comparison.low > 0 and comparison.p < ALPHA:
        return True
    return False if comparison.high < MARGIN else None


def does_not_beat(comparison: Comparison) -> bool | None:
    """Return whether a does not beat b by the module's rule; None where that is open."""
    answer = beats(comparison)
    return None if answer is None else not answer


def alike(comparison: Comparison) -> bool | None:
    """Return whether a and b are alike by the module's rule; None where that is open."""
    if comparison.n_runs == ONCE:
        return None
    # Differences smaller than the margin count as none, even if a test can tell them from zero.
    if comparison.low > -MARGIN and comparison.high < MARGIN:
        return True
    beyond = comparison.low > MARGIN or comparison.high < -MARGIN
    return False if beyond and comparison.p < ALPHA else None


_RULES = {"better": beats, "no better": does_not_beat, "alike": alike}


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


def find_comparison(pairs: pd.DataFrame, a: str, b: str) -> Comparison | None:
    """Return the comparison of a with b from rows of `Answers.pairs`, in either order."""
    for row in pairs.itertuples():
        if (row.a, row.b) == (a, b):
            return Comparison(a, b, row.difference, row.low, row.high, row.p_holm, row.n_images, row.p_t, row.n_runs)
        # Seen from the other side, the difference changes its sign and the interval swaps its ends.
        if (row.a, row.b) == (b, a):
            return Comparison(a, b, -row.difference, -row.high, -row.low, row.p_holm, row.n_images, row.p_t, row.n_runs)
    return None


def describe_size(answers: Answers) -> str:
    """Return the size of a family's runs in words: pixels, filters, epochs at most, seeds a fold."""
    configs = answers.group.configs
    if not configs:
        return "no size, for no run is planned"
    config = configs[0]
    # Of one variant: another may have seeds of its own.
    runs = next(iter(answers.group.variants.values()))
    seeds = len(runs) // len({run.fold for run in runs})
    return (
        f"{config.image_size} pixels, {config.base_filters} filters, at most {config.epochs} epochs and "
        f"{'one seed' if seeds == 1 else f'{seeds} seeds'} a fold"
    )


def judge(sizes: list[Answers]) -> Verdict:
    """Return the verdict on the claim about a family, by Dice, from its answers at each size."""
    number = table_number(sizes[0].family)
    judged = [_judge_by_dice(read_claims()[number], answers) for answers in sizes]
    return _compose(number, judged, _describe_rows(sizes[0].family), _describe_dice(sizes[0].table))


def list_differences(sizes: list[Answers], limit: int = 3) -> pd.DataFrame:
    """Return the differences that the claim about a family is judged by, the ``limit`` widest at each size.

    Returns:
        `label`, `size` (in short words), `difference`, `low` and `high`, for `busi.report.figures.differences`.
    """
    claim = read_claims()[table_number(sizes[0].family)]
    tables = []
    for answers in sizes:
        known = [comparison for comparison in _find_comparisons(claim, answers) if comparison]
        known.sort(key=lambda comparison: -abs(comparison.difference))
        labels = {f"{each.a} − {each.b}": each for each in known[:limit]}
        tables.append(_tabulate_differences(labels, answers))
    return pd.concat(tables, ignore_index=True)


def compare_with_baseline(answers: Answers) -> tuple[str, pd.DataFrame]:
    """Return what differs from a family's first variant in words, and the differences as `list_differences`."""
    baseline, *others = answers.group.variants
    rows = _choose_rows({}, answers)
    found = {label: find_comparison(rows, label, baseline) for label in others}
    known = {label: comparison for label, comparison in found.items() if comparison}
    better = sum(beats(comparison) is True for comparison in known.values())
    worse = sum(_read(comparison) == "worse" for comparison in known.values())
    title = f"{better or 'None'} of {with_noun(len(known), 'variant')} better than {baseline}, {worse or 'none'} worse"
    return title, _tabulate_differences(known, answers)


def _tabulate_differences(comparisons: dict[str, Comparison], answers: Answers) -> pd.DataFrame:
    rows = [comparison._asdict() for comparison in comparisons.values()]
    return pd.DataFrame(rows, columns=Comparison._fields).assign(label=list(comparisons), size=answers.size_words)


def judge_metrics(families: list[list[Answers]], table: pd.DataFrame, pairs: pd.DataFrame) -> Verdict:
    """Return the verdict on claim 5: whether the published metrics rank predictors as Dice does.

    Args:
        families: Of each family its answers at each size.
        table: As ``heldout.csv``.
        pairs: As ``pairwise.csv``.
    """
    judged = []
    for place in range(max(map(len, families))):
        sizes = [answers[place] for answers in families if len(answers) > place]
        size = sizes[0].size
        ranked = rank_pairs(table[table["size"] == size], pairs[pairs["size"] == size])
        judged.append(_judge_by_ranks(ranked, describe_size(sizes[0]), _describe_progress(sizes)))
    first = table[table["size"] == families[0][0].size]
    return _compose(5, judged, _describe_extremes(), _describe_metrics(first))


def rank_pairs(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs that Dice tells apart, and how each published metric ranks them.

    A pair of settings that belongs to several families counts once. Runs that are dead count.

    Args:
        table: Rows of ``heldout.csv`` of one size.
        pairs: Rows of ``pairwise.csv`` of the same size.

    Returns:
        `better` and `worse` by Dice, `difference` (positive), and by each of `METRICS` whether it ranks them the same.
    """
    by_name = table.set_index(["family", "variant"])
    rows: dict[frozenset, dict] = {}
    for pair in pairs[pairs.kind != ALIVE].itertuples():
        a, b = by_name.loc[(pair.family, pair.a)], by_name.loc[(pair.family, pair.b)]
        if pair.n_runs == ONCE or pair.low <= 0 <= pair.high or pd.isna(pair.low):
            continue
        names = (pair.a, pair.b) if pair.difference > 0 else (pair.b, pair.a)
        row = {"better": names[0], "worse": names[1], "difference": abs(pair.difference)}
        for metric, (_, sign) in METRICS.items():
            row[metric] = sign * (a[metric] - b[metric]) * pair.difference > 0
        rows.setdefault(frozenset((a.settings, b.settings)), row)
    return pd.DataFrame(rows.values(), columns=["better", "worse", "difference", *METRICS])


def count_ranks(families: list[list[Answers]], table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Return `metric`, `size` and `share` (of the pairs that Dice tells apart, ranked alike); as `judge_metrics`."""
    words = {answers.size: answers.size_words for sizes in families for answers in sizes}
    rows = []
    for size, own in pairs.groupby("size", sort=False):
        ranked = rank_pairs(table[table["size"] == size], own)
        for metric, (name, _) in METRICS.items():
            rows.append({"metric": name, "size": words[size], "share": ranked[metric].astype(float).mean()})
    return pd.DataFrame(rows, columns=["metric", "size", "share"])


def record_verdict(parameters: Parameters, verdict: Verdict) -> None:
    """Write a verdict into the report's ``findings.json``, for the summary."""
    # JSON takes only text as a key.
    facts = {str(verdict.number): verdict.row}
    record_finding(parameters, "claims", **facts)


def read_verdicts(parameters: Parameters) -> pd.DataFrame:
    """Return all five recorded verdicts as ``claims.csv`` has them, all of it text.

    Returns:
        `claim`, `published`, `ours`; `verdict`, `evidence`, `size` and `reason`, and the same as `second_*` at the
        second size, empty where there is none; `title`, the verdict in words; `sentence`, which has all of it in short.

    Raises:
        NotMeasured: A claim has not been judged yet.
    """
    recorded = read_findings(parameters).get("claims", {})
    for number in read_claims():
        if str(number) not in recorded:
            raise NotMeasured(f"claim {number}: not judged yet; run the report's notebooks in order, or make study")
    table = pd.DataFrame([recorded[str(number)] for number in read_claims()])
    table["claim"] = table.number.astype(str) + ". " + table.claim
    judged = ["verdict", "evidence", "size", "reason"]
    second = [f"second_{name}" for name in judged]
    return table[["claim", "published", "ours", *judged, *second, "title", "sentence"]]


def count_verdicts(verdicts: pd.DataFrame) -> str:
    """Return how many claims are upheld, not upheld and undecided, and which; of a table of `read_verdicts`."""
    numbers = verdicts.claim.str.partition(".")[0]
    parts = []
    for verdict in (UPHELD, NOT_UPHELD, UNDECIDED):
        chosen = numbers[verdicts.verdict == verdict]
        if len(chosen):
            verb = agree(len(chosen), "is", "are")
            parts.append(f"{len(chosen)} {verb} {verdict} ({', '.join(chosen)})")
    return f"Of the paper's {len(verdicts)} claims, {'; '.join(parts)}, at {verdicts['size'].iloc[0]}."


def list_verdicts(verdicts: pd.DataFrame) -> str:
    """Return the sentence of every verdict of a table of `read_verdicts`, as a Markdown list."""
    return "\n".join(f"- {sentence}" for sentence in verdicts.sentence)


def _compose(number: int, judged: list[Judgement], published: str, ours: str) -> Verdict:
    claim = read_claims()[number]
    return Verdict(number, claim["section"], claim["claim"], published, ours, *judged)


def _judge_by_dice(claim: dict, answers: Answers) -> Judgement:
    comparisons = _find_comparisons(claim, answers)
    rule = _RULES[claim["test"]]
    replies = [rule(comparison) if comparison else None for comparison in comparisons]
    known = [comparison for comparison in comparisons if comparison]
    sentences = _describe_comparisons(known, claim["test"])
    if known and len(known) < len(comparisons):
        missing = len(comparisons) - len(known)
        sentences.append(f"{with_noun(missing, 'comparison')} {agree(missing, 'waits', 'wait')} for runs.")
    # Of several pairs the widest decides the most; the evidence has them all.
    widest = max(known, key=lambda comparison: abs(comparison.difference), default=None)
    reason = widest.short if widest else "nothing to compare yet"
    if "proof" in claim:
        replies.append(False)
        reason = f"{claim['proof']}; measured beside it: {reason}"
        sentences.insert(0, f"By proof, whatever the size: {claim['proof']}.")
    remarks = [
        *sentences,
        _describe_same(answers),
        name_runs(answers.dead, "Dead runs, which say the same of every pixel"),
        name_runs(_count_capped(answers), "Runs that reached the last epoch planned"),
        _describe_progress([answers]),
        claim.get("aside", ""),
    ]
    return Judgement(describe_size(answers), decide(replies), reason, " ".join(filter(None, remarks)))


def _find_comparisons(claim: dict, answers: Answers) -> list[Comparison | None]:
    """Return the comparisons that a claim is judged by; None for a pair that waits for its runs."""
    # Planned variants: such a pair leaves the claim open.
    labels = list(answers.group.variants)
    pairs = [(claim.get("variant"), other) for other in claim.get("than", []) if other in labels]
    if claim["test"] == "alike":
        pairs = list(combinations(labels, 2))
    rows = _choose_rows(claim, answers)
    return [find_comparison(rows, a, b) for a, b in pairs]


def _choose_rows(claim: dict, answers: Answers) -> pd.DataFrame:
    """Return the pairs that a claim is judged by: all runs, or only those that are not dead."""
    pairs = answers.pairs
    rows = pairs[pairs.kind.isin([VARIANTS, SAME])]
    if not claim.get("without_dead"):
        return rows
    whole = ~(rows.a.isin(answers.dead) | rows.b.isin(answers.dead))
    return pd.concat([rows[whole], pairs[pairs.kind == ALIVE]])


def _describe_comparisons(comparisons: list[Comparison], test: str) -> list[str]:
    if not comparisons:
        return ["There is nothing to compare yet."]
    if test != "alike":
        return [f"{comparison}: {_read(comparison)}." for comparison in comparisons]
    answers = [alike(comparison) for comparison in comparisons]
    within, beyond = answers.count(True), answers.count(False)
    is_alike, differs = agree(within, "is alike", "are alike"), agree(beyond, "differs", "differ")
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


def _describe_same(answers: Answers) -> str:
    """Return what pairs of one function measure, the study's A/A test; empty without such a pair."""
    same = answers.pairs[answers.pairs.kind == SAME]
    texts = []
    for row in same.itertuples():
        covers = "covers" if row.low <= 0 <= row.high else "does not cover"
        interval = format_interval(Interval(row.difference, row.low, row.high))
        texts.append(f"A/A: {row.a} − {row.b}, one function by proof, {interval}, which {covers} 0.")
    return " ".join(texts)


def _count_capped(answers: Answers) -> dict[str, tuple[int, int]]:
    rows = answers.table[answers.table.n_capped > 0].itertuples()
    return {row.variant: (int(row.n_capped), row.n_runs) for row in rows}


def _judge_by_ranks(ranked: pd.DataFrame, size: str, progress: str) -> Judgement:
    counts, examples, replies = [], [], []
    for metric, (name, _) in METRICS.items():
        same = ranked[metric].sum()
        counts.append(f"{name} {same}")
        replies.append(bool(same >= TELLING * len(ranked)) if len(ranked) >= ENOUGH else None)
        wrong = ranked[~ranked[metric].astype(bool)]
        if len(wrong):
            worst = wrong.loc[wrong.difference.idxmax()]
            examples.append(f"by {name}, {worst.better} is no better than {worst.worse} ({worst.difference:+.3f} Dice)")
    reason = f"of {with_noun(len(ranked), 'pair')} that Dice tells apart, ranked as Dice does: {', '.join(counts)}"
    wrongest = f"The widest that they get wrong: {'; '.join(examples)}." if examples else ""
    evidence = f"{reason[0].upper()}{reason[1:]}; {TELLING:.0%} are asked for. {wrongest} {progress}"
    return Judgement(size, decide(replies), reason, evidence.strip())


def _describe_progress(families: Iterable[Answers]) -> str:
    finished, planned = count_runs(families)
    return f"Provisional: {finished} of {planned} planned runs are there." if finished < planned else ""


def _describe_dice(table: pd.DataFrame) -> str:
    # Untrained predictors are in the table too, without runs.
    scored = table[table.n_runs > 0].itertuples()
    means = [f"{row.variant} has Dice {row.dice:.3f} ({row.dice_low:.3f} to {row.dice_high:.3f})" for row in scored]
    return "; ".join(means) or "nothing has been scored yet"


def _describe_metrics(table: pd.DataFrame) -> str:
    trained, constant = table[table.n_runs > 0], table[table.variant == CONSTANT].iloc[0]
    spans = [f"Dice {trained.dice.min():.3f} to {trained.dice.max():.3f} (constant {constant.dice:.3f})"]
    for metric, (name, _) in METRICS.items():
        column = trained[metric]
        spans.append(f"{name} {column.min():.3f} to {column.max():.3f} ({constant[metric]:.3f})")
    return ", ".join(spans)


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
