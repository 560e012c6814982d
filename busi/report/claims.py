"""Verdicts on the paper's five claims, computed from held-out scores by one rule.

A claim is a set of statements about two predictors, a and b. Each is answered yes, no, or left open, by the rule in
``docs/heldout-protocol.md`` ("The rule"): claims 1 to 4 from the mean difference in Dice, its interval and corrected p
value, claim 5 from how the published metrics rank the pairs whose interval excludes 0. The claim is

- upheld, if every statement is answered as the claim says;
- not upheld, if at least one is answered the other way, or by proof;
- undecided, otherwise.

The statements of each claim are in ``claims.yaml``. Each verdict names the size at which it was reached. At the
profile's second size, the statements about the variants trained there are judged again.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

from busi.config import Parameters
from busi.display import agree, count
from busi.published import published_tables, table_number
from busi.report.heldout import ALIVE, FOUND_NOTHING, SAME, VARIANTS, Answers, count_runs, find_dead
from busi.results import NotMeasured, read_findings, record_finding
from busi.scoring.predictors import MEAN_MASK
from busi.scoring.statistics import SIGNIFICANCE, format_p

MARGIN = 0.02
"""Smallest difference that matters in a mean score from 0 to 1: a choice of this study, and a matter of judgement."""

TELLING = 0.95
"""Share of the pairs whose interval excludes 0 that a metric has to rank as Dice does: wrong at most once in twenty."""

ENOUGH = 20
"""Smallest number of such pairs by which a metric is judged: with fewer, a single error is more than one in twenty."""

FEWEST = 2
"""Smallest number of runs that shows how training varies; runs of different folds are different trainings."""

DRAWN = 3
"""Largest number of differences at one size in the figure of a claim."""

UPHELD = "upheld"
NOT_UPHELD = "not upheld"
UNDECIDED = "undecided"

METRICS = {"accuracy_half": "accuracy", "auc_pooled": "pooled AUC", "loss": "cross-entropy"}
"""Columns of the published metrics in ``heldout.csv``, in words.

Accuracy is that at one half, as published. The loss is the cross-entropy for every network, whatever it was trained on,
because the values of different losses cannot be compared.
"""


class Comparison(NamedTuple):
    """Comparison of two predictors, a and b, in Dice over the images that both have scored.

    Attributes:
        a, b: Their names.
        difference: Mean of a - b, with its 95 % interval from `low` to `high`.
        p: p value after Holm's correction.
        n_images: Number of images.
        p_t_holm: That of the corrected resampled t test, and `t_high` the upper end of its interval; nan without it.
        n_runs: Number of pairs of runs, in `n_folds` folds; 0 with an untrained predictor.
        folds_needed: Number of folds that need a run before the comparison is read.
        kind: Kind of the pair, as in `busi.report.heldout`.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    n_images: int
    p_t_holm: float = float("nan")
    t_high: float = float("nan")
    n_runs: int = 0
    n_folds: int = 0
    folds_needed: int = 1
    kind: str = VARIANTS

    @property
    def is_early(self) -> bool:
        """Return whether too few runs have been trained for an answer, or a planned fold has none."""
        return _lacks_runs(self.n_runs, self.n_folds, self.folds_needed)

    @property
    def short(self) -> str:
        """Return the comparison in words, with its interval: "A minus B: +0.012 Dice (-0.003 to +0.027)"."""
        # Names may hold a plus sign, so that a minus sign between them would be misread.
        return f"{self.a} minus {self.b}: {self.difference:+.3f} Dice ({self.low:+.3f} to {self.high:+.3f})"

    def __str__(self) -> str:
        """Return the comparison in words, with its interval and tests."""
        tests = f"{_tell_p(self.p)} after Holm"
        if pd.notna(self.p_t_holm):
            tests += f" (corrected resampled t test: {_tell_p(self.p_t_holm)})"
        return f"{self.short}, {tests}; {self.n_images} images"


def _lacks_runs(runs: int, folds: int, folds_needed: int) -> bool:
    # Untrained predictors have no runs to wait for.
    return runs > 0 and (runs < FEWEST or folds < folds_needed)


def _find_pair(answers: Answers, rows: pd.DataFrame, a: str, b: str) -> Comparison | None:
    """Return the comparison of a with b in some of a family's pairs, with the number of folds that it needs."""
    found = find_comparison(rows, a, b)
    return found and found._replace(folds_needed=count_folds(answers))


def _tell_p(p: float) -> str:
    shown = format_p(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


_JUDGED = ["verdict", "evidence", "size", "reason"]


@dataclass(frozen=True)
class Judgement:
    """A claim at one size: the verdict, the reason (what decides it) in a few words, the evidence in sentences."""

    size: str
    verdict: str
    reason: str
    evidence: str


@dataclass(frozen=True)
class Verdict:
    """Verdict on one claim at the profile's size and, if there is one, at its second size; all in words."""

    number: int
    claim: str
    first: Judgement
    second: Judgement | None = None

    @property
    def title(self) -> str:
        """Return the verdict in words, the title of its figure and card; if the second one differs, with the size."""
        says = read_claims()[self.number]["says"][self.first.verdict]
        if self.second and self.second.verdict != self.first.verdict:
            # The size begins with its pixels.
            return f"{says}, at {self.first.size.partition(',')[0]}"
        return says

    @property
    def short(self) -> str:
        """Return a short text, in Markdown: verdict and claim, the verdict in words, and what decides each size."""
        text = f"**{self.first.verdict.capitalize()}:** {self.claim}\n\n"
        text += f"{self.title}. At {self.first.size}: {self.first.reason}."
        if self.second:
            text += f"\n\nAt {self.second.size}, {self.second.verdict}: {self.second.reason}."
        return text

    @property
    def evidence(self) -> str:
        """Return the evidence at all sizes, as paragraphs of Markdown."""
        judged = filter(None, [self.first, self.second])
        return "\n\n".join(f"At {each.size}, {each.verdict}: {each.evidence}" for each in judged)

    @property
    def row(self) -> dict[str, str | int]:
        """Return the row of ``claims.csv``."""
        basis = read_claims()[self.number].get("basis", "scores")
        row = {"number": self.number, "claim": self.claim, "title": self.title, "basis": basis}
        row |= asdict(self.first)
        # A study without a second size has empty cells there.
        second = asdict(self.second) if self.second else dict.fromkeys(_JUDGED, "")
        for name in _JUDGED:
            row[f"second_{name}"] = second[name]
        return row


def beats(comparison: Comparison) -> bool | None:
    """Return whether a beats b; None where that is open.

    Yes, if the interval lies above 0 and p is below `SIGNIFICANCE`. No, if it lies below `MARGIN`: no advantage that
    matters.
    """
    if comparison.is_early:
        return None
    if comparison.low > 0 and comparison.p < SIGNIFICANCE:
        return True
    return False if comparison.high < MARGIN else None


def does_not_beat(comparison: Comparison) -> bool | None:
    """Return whether a does not beat b; None where that is open. See `beats`."""
    answer = beats(comparison)
    return None if answer is None else not answer


def alike(comparison: Comparison) -> bool | None:
    """Return whether a and b are alike; None where that is open.

    Yes, if the interval lies within ±`MARGIN`. No, if it lies beyond, on one side, and p is below `SIGNIFICANCE`.
    """
    if comparison.is_early:
        return None
    # Differences smaller than the margin count as none, even if a test can tell them from zero.
    if comparison.low > -MARGIN and comparison.high < MARGIN:
        return True
    beyond = comparison.low > MARGIN or comparison.high < -MARGIN
    return False if beyond and comparison.p < SIGNIFICANCE else None


_RULES = {"better": beats, "no better": does_not_beat, "alike": alike}


def decide(answers: list[bool | None]) -> str:
    """Return the verdict on a claim from the answers to its statements; without statements it is undecided."""
    if False in answers:
        return NOT_UPHELD
    # `all` of an empty list is true, but a claim with nothing in its favour is not upheld.
    return UPHELD if answers and all(answers) else UNDECIDED


@cache
def read_claims() -> dict[int, dict]:
    """Read the claims by number from ``claims.yaml``."""
    return yaml.safe_load(Path(__file__).with_name("claims.yaml").read_text(encoding="utf-8"))


def _find_claim(family: str) -> dict:
    """Return the claim about a family; empty if the paper has none."""
    return next((claim for claim in read_claims().values() if claim["family"] == family), {})


def find_comparison(pairs: pd.DataFrame, a: str, b: str) -> Comparison | None:
    """Return the comparison of a with b from rows of `Answers.pairs`, in either order."""
    for row in pairs.itertuples():
        rest = {"p": row.p_holm, "p_t_holm": row.p_t_holm, "kind": row.kind}
        rest |= {"n_images": row.n_images, "n_runs": row.n_runs, "n_folds": row.n_folds}
        if (row.a, row.b) == (a, b):
            return Comparison(a, b, row.difference, row.low, row.high, t_high=row.t_high, **rest)
        # Seen from the other side, the difference changes its sign and the interval swaps its ends.
        if (row.a, row.b) == (b, a):
            return Comparison(a, b, -row.difference, -row.high, -row.low, t_high=-row.t_low, **rest)
    return None


def describe_size(answers: Answers, compared: Collection[str] = ()) -> str:
    """Return the size of a family's runs in words: pixels, filters, epochs, and the number of seeds a fold.

    While runs are missing, the number of trained runs a variant takes the place of the seeds. Where some variants are
    ``compared``, only their runs count.
    """
    variants = answers.group.variants
    chosen = variants.keys() & set(compared)
    if chosen:
        variants = {label: configs for label, configs in variants.items() if label in chosen}
    # Seeds are counted within one variant, because another one may have seeds of its own.
    planned = max(variants.values(), key=len, default=[])
    if not planned:
        return "no size, because no run is planned"
    size = f"{answers.size_words}, at most {count(planned[0].epochs, 'epoch')}"
    trained = answers.results.runs.variant.value_counts().reindex(list(variants), fill_value=0)
    if trained.any() and trained.min() < len(planned):
        fewest = f"{trained.min()} to " if trained.min() < trained.max() else ""
        return f"{size}, {fewest}{trained.max()} of {len(planned)} runs a variant"
    seeds = len(planned) // len({run.fold for run in planned})
    return f"{size}, {count(seeds, 'seed')} a fold"


def judge(sizes: list[Answers]) -> Verdict:
    """Return the verdict on a family's claim, by Dice, from the family's answers at each size."""
    number = table_number(sizes[0].family)
    claim = read_claims()[number]
    # Without a run, the first size leaves the claim open, and a second one gives no verdict.
    asked = [answers for answers in sizes if answers is sizes[0] or _has_run(answers)]
    first, *second = [_judge_by_dice(claim, answers) for answers in asked]
    # A proof or a remark on the claim is told once, whatever the number of sizes.
    if "proof" in claim:
        first = replace(first, reason=f"{claim['proof']}. Measured beside it: {first.reason}")
        second = [replace(each, reason=f"by the same proof; measured beside it: {each.reason}") for each in second]
    if "aside" in claim:
        first = replace(first, evidence=f"{first.evidence} {claim['aside']}")
    return Verdict(number, claim["claim"], first, *second)


def _has_run(answers: Answers) -> bool:
    return len(answers.results.runs) > 0


def list_differences(sizes: list[Answers]) -> pd.DataFrame:
    """Return the differences that a family's claim is judged by, the `DRAWN` largest at each size, and A/A pairs.

    Returns:
        `label`, `size` (in short words), `difference`, `low` and `high`, for `busi.report.figures.differences`.
    """
    claim = read_claims()[table_number(sizes[0].family)]
    tables = []
    for answers in sizes:
        known = [comparison for comparison in _find_comparisons(claim, answers) if comparison]
        known.sort(key=lambda comparison: -abs(comparison.difference))
        labels = {_name_difference(each): each for each in known[:DRAWN]}
        # A/A pairs show what chance alone makes; that belongs beside the differences that are judged.
        labels |= {f"{_name_difference(each)}, one function": each for each in _find_chance(answers)}
        tables.append(_tabulate_differences(labels, answers))
    return pd.concat(tables, ignore_index=True)


def _name_difference(comparison: Comparison) -> str:
    """Return the name of a difference in a figure, with what it leaves out or lacks."""
    # Short, because a line of the figure holds some 45 characters.
    runs = "live runs" if comparison.kind == ALIVE else "runs"
    remark = f" ({runs})" if comparison.kind == ALIVE else ""
    if comparison.is_early:
        remark = f" (few {runs})"
    return f"{comparison.a} − {comparison.b}{remark}"


def compare_with_baseline(answers: Answers) -> tuple[str, pd.DataFrame]:
    """Return in words how many variants differ from a family's first, and the differences as `list_differences`."""
    # The first variant is the baseline, which every other one changes.
    baseline, *others = answers.group.variants
    rows = _choose_rows(answers, without_dead=_find_claim(answers.family).get("without_dead", False))
    known = {}
    sides = Counter()
    for label in others:
        comparison = _find_pair(answers, rows, label, baseline)
        if comparison:
            known[f"{label} (live runs)" if comparison.kind == ALIVE else label] = comparison
            sides["early" if comparison.is_early else _find_side(comparison)] += 1
    title = f"{sides['better'] or 'None'} of {count(len(known), 'variant')} better than {baseline}, "
    title += f"{sides['worse'] or 'none'} worse"
    # A variant may have all of its runs, most of them dead.
    alive = " that are not dead" if (rows.kind == ALIVE).any() else ""
    title += f", {sides['early']} with too few runs{alive}" if sides["early"] else ""
    return title, _tabulate_differences(known, answers)


def _tabulate_differences(comparisons: dict[str, Comparison], answers: Answers) -> pd.DataFrame:
    rows = [comparison._asdict() for comparison in comparisons.values()]
    return pd.DataFrame(rows, columns=Comparison._fields).assign(label=list(comparisons), size=answers.size_words)


def judge_metrics(families: list[list[Answers]], ranked: pd.DataFrame) -> Verdict:
    """Return the verdict on claim 5, from each family's answers at each size and the pairs of `rank_pairs`."""
    judged = []
    # Often only one family is trained at the second size.
    for place in range(max(map(len, families))):
        sizes = [answers[place] for answers in families if len(answers) > place]
        if place > 0 and not any(map(_has_run, sizes)):
            continue
        own = ranked[ranked["size"] == sizes[0].size_words]
        judged.append(_judge_by_ranks(own, describe_size(sizes[0]), _describe_progress(sizes)))
    return Verdict(5, read_claims()[5]["claim"], *judged)


def rank_pairs(families: list[list[Answers]], table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of ``pairwise.csv`` whose interval excludes 0, and how the metrics in ``heldout.csv`` rank them.

    A pair of settings that belongs to several families counts once at each size. Dead runs count. A size without a run
    has no pairs: those of untrained predictors would only repeat what they say at other sizes.

    Returns:
        `size` (in short words), `better` and `worse` by Dice, `difference` (positive), `networks` (0 to 2: how many of
        the two are networks), and for each of `METRICS` whether it ranks them the same.
    """
    sizes = {each.size: each for answers in families for each in answers}
    scores = table.set_index(["size", "family", "variant"])
    has_run = pairs["size"].isin(pairs["size"][pairs.n_runs > 0])
    is_apart = (pairs.low > 0) | (pairs.high < 0)
    rows: dict[tuple, dict] = {}
    for pair in pairs[has_run & is_apart & ~pairs.kind.isin([SAME, ALIVE])].itertuples():
        size = sizes[pair.size]
        if _lacks_runs(pair.n_runs, pair.n_folds, count_folds(size)):
            continue
        # From here on the pair is read so that its first predictor is the better one.
        names = [pair.a, pair.b]
        if pair.difference <= 0:
            names.reverse()
        better, worse = (scores.loc[(pair.size, pair.family, name)] for name in names)
        row = {"size": size.size_words, "better": names[0], "worse": names[1], "difference": abs(pair.difference)}
        row["networks"] = int(better.n_runs > 0) + int(worse.n_runs > 0)
        row["accuracy_half"] = better.accuracy_half > worse.accuracy_half
        row["auc_pooled"] = better.auc_pooled > worse.auc_pooled
        row["loss"] = better.loss < worse.loss
        settings = frozenset([better.settings, worse.settings])
        rows.setdefault((pair.size, settings), row)
    return pd.DataFrame(rows.values(), columns=["size", "better", "worse", "difference", "networks", *METRICS])


def record_verdict(parameters: Parameters, verdict: Verdict) -> None:
    """Write a verdict into the report's ``findings.json``, for the summary."""
    # Keys in JSON are text.
    facts = {str(verdict.number): verdict.row}
    record_finding(parameters, "claims", **facts)


def read_verdicts(parameters: Parameters) -> pd.DataFrame:
    """Return all five recorded verdicts, as in ``claims.csv``, all of them text.

    Returns:
        `claim` (with its number); `verdict`, `evidence`, `size` and `reason`, and the same as `second_*` at the second
        size, empty if there is none; `title`, the verdict in words; `basis`, "scores" or what is proved.

    Raises:
        NotMeasured: A claim has not been judged yet.
    """
    recorded = read_findings(parameters).get("claims", {})
    rows = []
    for number in read_claims():
        if str(number) not in recorded:
            raise NotMeasured(f"claim {number}: not judged yet; run the report's notebooks in order, or make study")
        rows.append(recorded[str(number)])
    table = pd.DataFrame(rows)
    table["claim"] = table.number.astype(str) + ". " + table.claim
    second = [f"second_{name}" for name in _JUDGED]
    return table[["claim", *_JUDGED, *second, "title", "basis"]]


def list_verdicts(verdicts: pd.DataFrame) -> str:
    """Return a Markdown list of the verdicts in a table of `read_verdicts`, each size below with what decides it."""
    lines = []
    for row in verdicts.itertuples():
        number = row.claim.partition(".")[0]
        lines.append(f"- **{row.title}** (claim {number}, {row.verdict})")
        lines.append(f"  - At {row.size}: {row.reason}.")
        if row.second_verdict:
            lines.append(f"  - At {row.second_size}, {row.second_verdict}: {row.second_reason}.")
    return "\n".join(lines)


def _judge_by_dice(claim: dict, answers: Answers) -> Judgement:
    comparisons = _find_comparisons(claim, answers)
    rule = _RULES[claim["test"]]
    replies = [rule(comparison) if comparison else None for comparison in comparisons]
    known = [comparison for comparison in comparisons if comparison]
    sentences = _describe_comparisons(known, claim["test"])
    if claim["test"] == "alike":
        sentences += _count_apart(_take_published(claim, known))
    else:
        alive = _find_alive(claim, known, answers)
        sentences += [f"Without dead runs: {pair}: {_tell_side(pair)}." for pair in alive]
    missing = len(comparisons) - len(known)
    if known and missing:
        sentences.append(f"{count(missing, 'comparison')} {agree(missing, 'waits', 'wait')} for runs.")
    twins = _find_twins(claim, answers)
    reason = _find_reason(claim, known, twins, answers)
    if "proof" in claim:
        sentences.append(f"By these scores alone, the claim would be {decide(replies)}.")
        replies.append(False)
    if twins:
        other = "; ".join(f"{twin.short}, {_tell_side(twin)}" for twin in twins)
        sentences.append(f"With {claim['twin']}, the same function as {claim['variant']}: {other}.")
    for what, pair in _find_beside(claim, answers).items():
        sentences.append(f"Not judged, {what}: {pair}: {_tell_side(pair)}.")
    sentences += map(_describe_chance, _find_chance(answers))
    sentences += _describe_weak(answers)
    sentences += _describe_dead(answers)
    sentences += map("{}.".format, _name_runs("Runs that reached the last planned epoch", answers.capped))
    sentences.append(_describe_progress([answers]))
    evidence = " ".join(filter(None, sentences))
    compared = [claim["variant"], *claim["than"]] if "variant" in claim else []
    return Judgement(describe_size(answers, compared), decide(replies), reason, evidence)


def _find_reason(claim: dict, known: list[Comparison], twins: list[Comparison], answers: Answers) -> str:
    """Return what decides a claim: comparisons with their intervals and what belongs to them, or what is missing."""
    if not known:
        return "nothing to compare yet"
    # A pair that lacks runs decides nothing.
    usable = [comparison for comparison in known if not comparison.is_early]
    if not usable:
        return "too few runs for a verdict"
    rule = _RULES[claim["test"]]
    against = [comparison for comparison in usable if rule(comparison) is False]
    # Pairs against the claim decide it. Without one, all pairs do.
    told = against or usable
    if claim["test"] == "alike":
        # Of dozens of pairs, the one with the largest difference says most. The claim is about the paper's settings.
        told = [_find_widest(_take_published(claim, told) or told)]
        reason = [_tell_widest(claim, told[0])]
    else:
        reason = [f"{each.short}, {_tell_side(each)}" for each in told]
    # The two are one function: if only one of them differs from a third, the difference is chance.
    others = {comparison.b for comparison in told}
    reason += [f"{twin.short}, {_tell_side(twin)}" for twin in twins if twin.b in others]
    reason += [f"{what}, {pair.short}, {_tell_side(pair)}" for what, pair in _find_beside(claim, answers).items()]
    if claim["test"] == "alike":
        # A budget that is too small for one of the two is part of the difference.
        compared = {told[0].a, told[0].b}
        capped = {label: counts for label, counts in answers.capped.items() if label in compared}
        reason += _name_runs("runs that reached the last planned epoch", capped)
    return "; ".join(reason)


def _tell_widest(claim: dict, widest: Comparison) -> str:
    """Return the pair that says most about the likeness of settings, and whether the paper compares it."""
    # Likeness has no better side.
    text = f"{widest.short}{_tell_doubt(widest)}"
    return text if _take_published(claim, [widest]) else f"{text}, a pair that the paper does not compare"


def _take_published(claim: dict, comparisons: list[Comparison]) -> list[Comparison]:
    """Return the comparisons of two settings that are rows of the paper's table."""
    rows = published_tables()[table_number(claim["family"])]["rows"]
    return [comparison for comparison in comparisons if comparison.a in rows and comparison.b in rows]


def _find_beside(claim: dict, answers: Answers) -> dict[str, Comparison]:
    """Return the comparisons that a claim names beside those it is judged by, with what each is about, in words."""
    beside = {}
    for what, (a, b) in claim.get("beside", {}).items():
        found = _find_pair(answers, _choose_rows(answers, without_dead=False), a, b)
        if found:
            beside[what] = found
    return beside


def _find_comparisons(claim: dict, answers: Answers, variant: str | None = None) -> list[Comparison | None]:
    """Return the comparisons that a claim is judged by; None for a pair that still waits for its runs.

    Args:
        claim: The claim, from ``claims.yaml``.
        answers: The family's answers.
        variant: Variant that is compared in place of the claim's own.
    """
    # All planned variants, because a pair without runs leaves the claim open.
    labels = list(answers.group.variants)
    if claim["test"] == "alike":
        pairs = list(combinations(labels, 2))
    else:
        better = variant or claim["variant"]
        pairs = [(better, other) for other in claim["than"] if other in labels]
    rows = _choose_rows(answers, without_dead=claim.get("without_dead", False))
    return [_find_pair(answers, rows, a, b) for a, b in pairs]


def _find_alive(claim: dict, comparisons: list[Comparison], answers: Answers) -> list[Comparison]:
    """Return those of the comparisons that have dead runs, without these; none if the claim is judged so anyway."""
    if claim.get("without_dead"):
        return []
    rows = answers.pairs[answers.pairs.kind == ALIVE]
    found = [_find_pair(answers, rows, comparison.a, comparison.b) for comparison in comparisons]
    return [comparison for comparison in found if comparison]


def count_folds(answers: Answers) -> int:
    """Return the number of planned folds, each of which needs a run for a verdict."""
    return len({config.fold for config in answers.group.configs})


def _choose_rows(answers: Answers, *, without_dead: bool) -> pd.DataFrame:
    """Return the pairs of a family's variants: of all their runs, or only of those that are not dead."""
    pairs = answers.pairs
    rows = pairs[pairs.kind.isin([VARIANTS, SAME])]
    if not without_dead:
        return rows
    whole = ~(rows.a.isin(answers.dead) | rows.b.isin(answers.dead))
    return pd.concat([rows[whole], pairs[pairs.kind == ALIVE]])


def _describe_comparisons(comparisons: list[Comparison], test: str) -> list[str]:
    if not comparisons:
        return ["There is nothing to compare yet."]
    if test != "alike":
        return [f"{comparison}: {_tell_side(comparison)}." for comparison in comparisons]
    answers = [alike(comparison) for comparison in comparisons]
    within = answers.count(True)
    beyond = answers.count(False)
    is_alike = agree(within, "is", "are")
    differ = agree(beyond, "differs", "differ")
    opened = answers.count(None)
    is_open = agree(opened, "is", "are")
    # With dozens of pairs, only the largest difference is given in numbers; the table of pairs has all.
    widest = _find_widest(comparisons)
    sentences = [
        f"Of {count(len(comparisons), 'pair')}, {within} {is_alike} alike within ±{MARGIN}, {beyond} {differ} by "
        f"more, {opened} {is_open} open.",
        f"The largest difference: {widest}.",
    ]
    apart = [pair for pair, answer in zip(comparisons, answers, strict=True) if answer is False]
    # Many pairs can differ because of a single variant, or of several.
    involved = Counter(label for pair in apart for label in (pair.a, pair.b))
    most = max(involved.values(), default=0)
    if most > 1:
        names = [name for name, times in involved.items() if times == most]
        each = agree(len(names), "is", "are each")
        sentences.append(f"{' and '.join(names)} {each} in {most} of the {beyond} pairs that differ.")
    return sentences


def _count_apart(published: list[Comparison]) -> list[str]:
    """Return how many comparisons of two settings of the paper differ: the others have a setting added here."""
    if not published:
        return []
    answers = [alike(comparison) for comparison in published]
    if len(published) == 1:
        answer = {True: "alike", False: "different", None: "open"}[answers[0]]
        return [f"The only pair of settings that the paper compares is {answer}: {published[0]}."]
    beyond = answers.count(False)
    differ = agree(beyond, "differs", "differ")
    return [f"Of the {len(published)} pairs of settings that the paper compares, {beyond or 'none'} {differ} by more."]


def _find_twins(claim: dict, answers: Answers) -> list[Comparison]:
    """Return the claim's comparisons with the variant replaced by the one that is the same function by proof."""
    if "twin" not in claim:
        return []
    return [comparison for comparison in _find_comparisons(claim, answers, claim["twin"]) if comparison]


def _find_chance(answers: Answers) -> list[Comparison]:
    """Return the comparisons of variants that are one function by proof: their difference is chance."""
    rows = answers.pairs[answers.pairs.kind == SAME]
    return [_find_pair(answers, rows, row.a, row.b) for row in rows.itertuples()]


def _describe_chance(comparison: Comparison) -> str:
    verdict = "The interval contains 0, as it should"
    if comparison.low > 0 or comparison.high < 0:
        verdict = "The interval should contain 0 and does not, so differences of this size can be chance"
    # Then the interval does not cover how training varies, and need not contain 0.
    if comparison.is_early:
        verdict = _tell_side(comparison).capitalize()
    return f"Two variants that are one function by proof: {comparison.short}. {verdict}."


def _find_widest(comparisons: list[Comparison]) -> Comparison:
    return max(comparisons, key=lambda comparison: abs(comparison.difference))


def _tell_side(comparison: Comparison) -> str:
    """Return what a comparison says about a, in a few words, and whether the stricter test says so, too."""
    return f"{_find_side(comparison)}{_tell_doubt(comparison)}"


def _find_side(comparison: Comparison) -> str:
    """Return whether a is better or worse, or why that is not told, in a few words."""
    if comparison.is_early:
        folds = count(comparison.folds_needed, "fold")
        runs = "runs that are not dead" if comparison.kind == ALIVE else "runs"
        return f"too few {runs} for a verdict ({comparison.n_runs}, in {comparison.n_folds} of {folds})"
    answer = beats(comparison)
    if answer is None:
        return "higher, though not told from chance after Holm" if comparison.low > 0 else "not told apart"
    if answer:
        return "better"
    # Not better is not the same as worse, which needs an interval below zero and a test that agrees.
    if comparison.high < 0:
        return "worse" if comparison.p < SIGNIFICANCE else "lower, though not told from chance after Holm"
    return f"not better by {MARGIN} or more"


def _tell_doubt(comparison: Comparison) -> str:
    """Return what the stricter test does not tell, although the interval and its test do; else nothing."""
    if comparison.is_early:
        return ""
    excludes_zero = comparison.low > 0 or comparison.high < 0
    if excludes_zero and comparison.p < SIGNIFICANCE <= comparison.p_t_holm:
        return ", though not told apart by the corrected resampled t test"
    # No difference of this size is left by the interval, but one by the test.
    if not excludes_zero and comparison.high < MARGIN <= comparison.t_high:
        return ", though the corrected resampled t test does not exclude such an advantage"
    return ""


def _describe_weak(answers: Answers) -> list[str]:
    """Return which variants have a lower Dice than the mean mask, which does not look at the image."""
    dice = answers.table.set_index("variant").dice
    if MEAN_MASK not in dice:
        return []
    weak = dice.reindex(list(answers.variants))
    weak = weak[weak < dice[MEAN_MASK]]
    if weak.empty:
        return []
    named = ", ".join(f"{label} {score:.3f}" for label, score in weak.items())
    return [f"Lower than the mean mask ({dice[MEAN_MASK]:.3f}), which looks at no image: {named}."]


def _describe_dead(answers: Answers) -> list[str]:
    """Return which variants have dead runs, when patience ended these, and when their other runs found lesions."""
    if not answers.dead:
        return []
    what = "Dead runs, which found nothing or gave every pixel the same answer"
    sentences = [f"{named}." for named in _name_runs(what, answers.dead)]
    dead = {run for variant in answers.dead for run in find_dead(answers.variants[variant])}
    runs = answers.results.runs
    epochs = answers.results.epochs
    stopped = runs[runs.run.isin(dead) & (runs.end == "patience")]
    if len(stopped):
        after = dict.fromkeys([stopped.epochs.min(), stopped.epochs.max()])
        listed = " to ".join(map(str, after))
        some = agree(len(dead), "It", "All")
        if len(stopped) < len(dead):
            some = f"{len(stopped)} of the {len(dead)}"
        verb = agree(len(stopped), "was", "were")
        sentences.append(f"{some} {verb} stopped early, after {listed} epochs, as validation Dice no longer rose.")
    # If other runs begin late, some of the dead ones may only have been stopped too early.
    is_alive = epochs.variant.isin(answers.dead) & ~epochs.run.isin(dead)
    alive = epochs[is_alive]
    first = alive[alive.validation_dice >= FOUND_NOTHING].groupby("run").epoch.min()
    if len(first):
        sentences.append(
            f"The latest of the other runs of the same variants began to find lesions in epoch {first.max()}."
        )
    return sentences


def _name_runs(what: str, counts: dict[str, tuple[int, int]]) -> list[str]:
    parts = []
    for variant, (some, runs) in counts.items():
        parts.append(f"{variant} {some} of {runs}")
    return [f"{what}: {', '.join(parts)}"] if parts else []


def _judge_by_ranks(ranked: pd.DataFrame, size: str, progress: str) -> Judgement:
    wrong = []
    replies = []
    enough = len(ranked) >= ENOUGH
    for metric, name in METRICS.items():
        alike_ranked = ranked[metric].astype(bool)
        is_telling = bool(alike_ranked.sum() >= TELLING * len(ranked))
        replies.append(is_telling if enough else None)
        others = ranked[~alike_ranked]
        if len(others) and not is_telling:
            worst = others.loc[others.difference.idxmax()]
            told = f"By {name}, {worst.better} is no better than {worst.worse}"
            wrong.append(f"{told}, although its Dice is {worst.difference:.3f} higher.")
    # Untrained predictors stand against each other at every size, so that the other pairs are told by themselves, too.
    mixed = ranked[ranked.networks > 0]
    networks = ranked[ranked.networks == 2]
    pairs = count(len(ranked), "pair")
    failing = [name for name, is_telling in zip(METRICS.values(), replies, strict=True) if is_telling is False]
    reason = f"fewer than the {TELLING:.0%} asked for are ranked alike by {', '.join(failing)}. " if failing else ""
    reason += (
        f"{pairs} of predictors {agree(len(ranked), 'has', 'have')} a difference in Dice whose interval excludes 0. "
    )
    reason += f"Ranked in the same order: {_count_alike(ranked)}. "
    reason += f"Of the {count(len(mixed), 'pair')} with a network among them: {_count_alike(mixed)}. "
    reason += f"Of the {count(len(networks), 'pair')} of two networks: {_count_alike(networks)}"
    if len(networks) < ENOUGH:
        reason += ", too few to say anything about networks"
    asked = f"A metric has to agree with Dice on the order of at least {TELLING:.0%} of the pairs whose interval "
    asked += "excludes 0. Accuracy is that at one half, as published, not at the threshold of the masks."
    evidence = " ".join([asked, *wrong, progress])
    return Judgement(size, decide(replies), reason, evidence.strip())


def _count_alike(ranked: pd.DataFrame) -> str:
    """Return how many of some pairs each metric ranks as Dice does, by metric, in words."""
    told = []
    for metric, name in METRICS.items():
        number = int(ranked[metric].sum())
        # A percentage of a few pairs would suggest a precision that they do not have.
        share = f" ({number / len(ranked):.1%})" if len(ranked) >= ENOUGH else ""
        told.append(f"by {name} {number}{share}")
    return ", ".join(told)


def _describe_progress(families: Iterable[Answers]) -> str:
    finished, planned = count_runs(families)
    return f"Provisional: {finished} of {planned} planned runs have been trained." if finished < planned else ""
