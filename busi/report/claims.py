"""Verdicts on the paper's five claims, computed from held-out scores by one rule.

The rule. A claim is a set of statements about two predictors, a and b, and the mean of a score over the held-out images
that both have scored, lesion images only. Each statement is answered from the mean difference a - b, its 95 % bootstrap
interval (`low` to `high`) and the Wilcoxon test's p after Holm's correction over all pairs of the family:

=============  =========================================  ======================================================
statement      yes                                        no
=============  =========================================  ======================================================
a beats b      `low` > 0 and p < `ALPHA`                  otherwise, `high` < `MARGIN`: no advantage worth the name
a and b alike  -`MARGIN` < `low` and `high` < `MARGIN`    the interval lies beyond `MARGIN` on one side, p < `ALPHA`
=============  =========================================  ======================================================

and open where neither holds, or where one of the two has no run. Then the claim is

- upheld, if every statement is answered as the claim has it;
- not upheld, if one is answered the other way;
- undecided at this size, otherwise.

"Does not beat" is "beats" with yes and no exchanged. The statements of each claim are in ``claims.yaml``. Claims 1 to 4
are judged by Dice. Claim 5 is judged by accuracy: of the darkest blob and of the network of the protocol's baseline,
whichever finds lesions (its Dice lies above the constant's by more than `MARGIN`, the whole interval) must beat the
constant predictor, which finds none, in accuracy as well.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

import pandas as pd
import yaml

from busi.evaluation import statistics
from busi.report import findings, tables
from busi.report.heldout import BLOB, CONSTANT, Answers, Scored

ALPHA = 0.05
"""Of the corrected tests."""

MARGIN = 0.02
"""Difference in a mean score, 0 to 1, from which on it matters: this study's choice; nothing but judgement sets it."""

NETWORK = "Baseline network"
"""The protocol's own settings, of which every held-out variant is a change."""

UPHELD, NOT_UPHELD, UNDECIDED = "upheld", "not upheld", "undecided at this size"


@dataclass(frozen=True)
class Comparison:
    """Two predictors on the images that both have scored.

    Attributes:
        a: The one that is compared.
        b: What it is compared with.
        difference: Mean of a - b over the images, in the score's unit.
        low: Lower end of its 95 % interval; missing (nan) where there is one group of images only.
        high: Upper end.
        p: Wilcoxon's, corrected by Holm.
        n_images: How many images both have scored.
        score: What is compared, as prose names it.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    n_images: int
    score: str = "Dice"

    @property
    def swapped(self) -> "Comparison":
        """The same comparison seen from b."""
        return Comparison(self.b, self.a, -self.difference, -self.high, -self.low, self.p, self.n_images, self.score)

    def __str__(self) -> str:
        """The comparison in words, with its numbers."""
        significance = "p < 0.0001" if self.p < 0.0001 else f"p = {self.p:.4f}"
        return (
            f"{self.a} − {self.b}: {self.difference:+.3f} {self.score} (95 % interval {self.low:+.3f} to "
            f"{self.high:+.3f}; {significance} after Holm; {self.n_images} images)"
        )


@dataclass(frozen=True)
class Verdict:
    """One claim, judged.

    Attributes:
        number: 1 to 5.
        section: Of the paper.
        claim: In our words.
        published: The numbers that it rests on.
        ours: Our held-out numbers.
        verdict: `UPHELD`, `NOT_UPHELD` or `UNDECIDED`.
        evidence: The comparisons that decide, in words, which runs find nothing, and how many of the planned ones there
            are while some are missing.
    """

    number: int
    section: str
    claim: str
    published: str
    ours: str
    verdict: str
    evidence: str

    @property
    def prose(self) -> str:
        """The verdict with its evidence as a paragraph of Markdown, then both answers as another."""
        return (
            f"Claim {self.number} (section {self.section}): *{self.claim}* **{self.verdict.capitalize()}.** "
            f"{self.evidence}\n\nPublished, on training images: {self.published}. Here, on images never trained on: "
            f"{self.ours}."
        )


def beats(found: Comparison | None) -> bool | None:
    """Whether a beats b by the module's rule; None where it is open, as it is without a comparison."""
    if found is None:
        return None
    if found.low > 0 and found.p < ALPHA:
        return True
    return False if found.high < MARGIN else None


def alike(found: Comparison | None) -> bool | None:
    """Whether a and b are alike by the module's rule; None where it is open, as it is without a comparison."""
    if found is None:
        return None
    if found.low > -MARGIN and found.high < MARGIN:
        return True
    return False if found.p < ALPHA and (found.low > MARGIN or found.high < -MARGIN) else None


def joined(answers: Iterable[bool | None]) -> str:
    """The verdict on a claim whose statements are answered so; a claim without a statement is undecided."""
    answers = list(answers)
    if any(answer is False for answer in answers):
        return NOT_UPHELD
    return UPHELD if answers and all(answers) else UNDECIDED


def compared(pairs: pd.DataFrame, a: str, b: str, score: str = "Dice") -> Comparison | None:
    """The comparison of a with b in a table of `busi.evaluation.statistics.pairwise`, whichever stands first there."""
    for row in pairs.itertuples():
        found = Comparison(row.a, row.b, row.difference, row.low, row.high, row.p_holm, row.n_images, score)
        if (row.a, row.b) == (a, b):
            return found
        if (row.a, row.b) == (b, a):
            return found.swapped
    return None


def judge(number: int, families: Mapping[str, Answers]) -> Verdict:
    """The verdict on claim ``number``.

    Args:
        number: 1 to 5.
        families: Held-out answers by family: of the claim's own, or of all for claim 5.
    """
    claim = stated()[number]
    if claim["test"] == "telling":
        about, (statements, ours), blind = families, _telling(families), ""
    else:
        about = {claim["family"]: families[claim["family"]]}
        statements, ours = _by_dice(claim, about[claim["family"]])
        blind = findings.blind(about[claim["family"]].blind)
    evidence = [_evidence(claim["test"], statements), blind, _progress(about), claim.get("aside", "")]
    return Verdict(
        number=number,
        section=claim["section"],
        claim=claim["claim"],
        published=_published(claim["family"]),
        ours=ours,
        verdict=joined(statement.answer for statement in statements),
        evidence=" ".join(filter(None, evidence)),
    )


def table(families: Mapping[str, Answers]) -> pd.DataFrame:
    """All five verdicts: `claim`, `published`, `ours`, `verdict`, `evidence`, as text.

    Args:
        families: The held-out answers of all families.
    """
    verdicts = [judge(number, families) for number in stated()]
    rows = [
        {
            "claim": f"{each.number}. {each.claim}",
            **{name: getattr(each, name) for name in ("published", "ours", "verdict", "evidence")},
        }
        for each in verdicts
    ]
    return pd.DataFrame(rows)


def summed_up(verdicts: pd.DataFrame) -> str:
    """How many of the claims are upheld, not upheld and undecided, and which.

    Args:
        verdicts: As `table`.
    """
    numbers = verdicts.claim.str.partition(".")[0]
    sentences = []
    for verdict in (UPHELD, NOT_UPHELD, UNDECIDED):
        which = numbers[verdicts.verdict == verdict]
        if len(which):
            sentences.append(f"{len(which)} {'is' if len(which) == 1 else 'are'} {verdict} ({', '.join(which)})")
    return f"Of the paper's {len(verdicts)} claims, {'; '.join(sentences)}."


def same(family: str) -> dict[str, str]:
    """Published method -> the held-out variant of its settings, for those of a family that have another name there."""
    return stated()[number_of(family)].get("same", {})


def number_of(family: str) -> int:
    """The number of the claim about a family."""
    return next(number for number, claim in stated().items() if claim["family"] == family)


@cache
def stated() -> dict[int, dict]:
    """The claims by number, from ``claims.yaml``."""
    return yaml.safe_load(Path(__file__).with_name("claims.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class _Statement:
    """A comparison that a claim is about, if there is one yet, and whether it comes out as the claim has it."""

    found: Comparison | None
    answer: bool | None


def _by_dice(claim: dict, family: Answers) -> tuple[list[_Statement], str]:
    if claim["test"] == "alike":
        statements = [
            _Statement(found, alike(found))
            for found in (compared(family.pairs, a, b) for a, b in combinations(family.runs, 2))
        ]
        return statements, _dice(family, list(family.runs))
    statements = []
    for other in claim["than"]:
        found = compared(family.pairs, claim["variant"], other)
        answer = beats(found)
        if claim["test"] == "no better" and answer is not None:
            answer = not answer
        statements.append(_Statement(found, answer))
    return statements, _dice(family, [claim["variant"], *claim["than"]])


def _telling(families: Mapping[str, Answers]) -> tuple[list[_Statement], str]:
    scored = {**next(iter(families.values())).trivial, **_baseline(families)}
    per_image = {label: each.per_image for label, each in scored.items()}
    dice, accuracy = (statistics.pairwise(per_image, score) for score in ("dice", "accuracy"))
    statements = []
    for label in (BLOB, NETWORK):
        finds = compared(dice, label, CONSTANT)
        # One that finds no lesions says nothing about whether accuracy tells it from one that does.
        if finds is None or finds.low > MARGIN:
            found = compared(accuracy, label, CONSTANT, "accuracy")
            statements.append(_Statement(found, beats(found)))
    lesions = {label: frame[frame.image_class != "normal"] for label, frame in per_image.items()}
    means = [
        f"{label} has Dice {frame.dice.mean():.3f} and accuracy {frame.accuracy.mean():.3f}"
        for label, frame in lesions.items()
    ]
    return statements, "; ".join(means) or "nothing has been scored yet"


def _baseline(families: Mapping[str, Answers]) -> dict[str, Scored]:
    """The network that every held-out variant is a change of; nothing where it has no run."""
    found = [
        scored
        for family in families.values()
        for scored in family.variants.values()
        if scored.runs[0].config.name == "baseline"
    ]
    return {NETWORK: found[0]} if found else {}


def _dice(family: Answers, labels: list[str]) -> str:
    """The mean Dice of a family's variants, with intervals."""
    rows = family.table.set_index("variant")
    known = [rows.loc[label] for label in labels if label in family.variants]
    means = [f"{row.name} has Dice {row.dice:.3f} ({row.dice_low:.3f} to {row.dice_high:.3f})" for row in known]
    return "; ".join(means) or "nothing has been scored yet"


def _evidence(test: str, statements: list[_Statement]) -> str:
    missing = sum(statement.found is None for statement in statements)
    known = [statement for statement in statements if statement.found is not None]
    if not known:
        return "There is nothing to compare yet."
    if test == "alike":
        inside, beyond = (sum(statement.answer is answer for statement in known) for answer in (True, False))
        widest = max((statement.found for statement in known), key=lambda found: abs(found.difference))
        sentences = [
            f"Of {len(known)} pairs {inside} {'is' if inside == 1 else 'are'} alike within ±{MARGIN} and {beyond} "
            f"{'differs' if beyond == 1 else 'differ'} by more.",
            f"The widest: {widest}.",
        ]
    else:
        sentences = [f"{statement.found}: {_reading(statement.found)}." for statement in known]
    if missing:
        sentences.append(f"{missing} {'comparison waits' if missing == 1 else 'comparisons wait'} for runs.")
    return " ".join(sentences)


def _reading(found: Comparison) -> str:
    answer = beats(found)
    if answer:
        return "better"
    if answer is None:
        return "not told apart"
    return "worse" if found.high < 0 and found.p < ALPHA else f"not better by {MARGIN} or more"


def _progress(families: Mapping[str, Answers]) -> str:
    """That a verdict is provisional, where planned runs are missing."""
    finished, planned = (
        len(frozenset().union(*(getattr(family, name) for family in families.values())))
        for name in ("finished", "planned")
    )
    return f"Provisional: {finished} of {planned} planned runs are there." if finished < planned else ""


def _published(family: str) -> str:
    """The numbers of a family's published rows; of all families', if none is named, their extremes."""
    if family:
        content = next(content for content in tables.published()["tables"].values() if content["family"] == family)
        rows = content["rows"].items()
        return "; ".join(f"{name} has accuracy {row['accuracy']:.4f} and AUC {row['auc']:.4f}" for name, row in rows)
    rows = tables.distinct_rows()
    spans = [
        f"{word} {rows[name].min():.4f} to {rows[name].max():.4f}"
        for name, word in (("accuracy", "accuracy"), ("auc", "AUC"), ("loss", "loss"))
    ]
    return f"{', '.join(spans)} in {len(rows)} rows"
