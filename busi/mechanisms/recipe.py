"""Recipe: what changes held-out Dice, one change at a time (a rung), scored like all other variants."""

from collections.abc import Mapping, Sequence
from itertools import pairwise, takewhile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from busi import display, results
from busi.config import Parameters, RunConfig
from busi.mechanisms import section
from busi.results import Results, empty_results
from busi.scoring.metrics import HIT_IOU
from busi.scoring.statistics import (
    SIGNIFICANCE,
    Interval,
    compare_pairs,
    difference_interval,
    find_test_ratio,
    format_interval,
    format_p,
    lesion_images,
    normals_at_sensitivity,
    normals_with_finding,
    summarize,
)
from busi.study import find_group, find_groups, load_results

GROUP = "mechanisms/recipe"

CHANGE = {"difference": "change", "low": "change_low", "high": "change_high", "p_holm": "change_p"}
CHANGE |= {"p_t_holm": "change_p_t"}
"""Columns of `busi.scoring.statistics.compare_pairs` -> their names in the table of rungs."""

TOTAL = ("total", "total_low", "total_high")
"""Columns of the change from the first rung."""

SENSITIVITY = 0.95
"""Share of the lesion images that every rung touches when false positives are compared at equal sensitivity."""

HEADINGS = {
    "change_p": "change p (Holm)",
    "change_p_t": "change p (t test, Holm)",
    "normals_fpr": "normals with a finding",
    "normals_fpr_min": "the same, lowest run",
    "normals_fpr_max": "the same, highest run",
    "normals_at_95": "normals at 95 %",
    "normals_at_95_min": "at 95 %, lowest run",
    "normals_at_95_max": "at 95 %, highest run",
}
"""Columns of `tabulate` that have another heading on the page."""

BEFOREHAND = "Goals set when the recipe was planned, and recorded when twelve of its thirteen rungs had been trained"
"""Start of every sentence about goals."""

GOAL_RUNG = "16 filters"
"""The rung that the goals are set for: the last of those that were planned first. A later one does not inherit them."""

GOAL_DICE = 0.75
"""Dice to be reached on the held-out and on the external images."""

GOAL_LOW = 0.72
"""Dice above which the whole 95 % interval of the held-out Dice must lie, so that the goal is not reached by luck."""

GOAL_NORMALS = 0.35
"""Share of normal images with a finding that the rung must stay below, at its own threshold."""


def take_whole_rungs(trained: Results, planned: Mapping[str, Sequence[RunConfig]]) -> Results:
    """Return the results of the rungs before the first one that lacks a run.

    Fewer folds would be other images, and a change over a gap would be that of several rungs.

    Args:
        trained: Results of the recipe's runs.
        planned: Rung -> the configurations of its runs, in the order of the recipe.
    """
    finished = trained.runs.groupby("variant").size()
    whole = list(takewhile(lambda rung: finished.get(rung, 0) == len(planned[rung]), planned))
    rows = trained.runs.index[trained.runs.variant.isin(whole)]
    return trained.in_order(rows)


def describe_ends(trained: Results) -> str:
    """Return the sizes of the first and the last rung in words, e.g. "first rung, baseline: 64 pixels, ..."."""
    ends = {"first": trained.variants[0], "last": trained.variants[-1]}
    return "; ".join(f"{place} rung, {rung}: {section.describe_runs(trained.of(rung))}" for place, rung in ends.items())


def tabulate(trained: Results) -> pd.DataFrame:
    """Return one row for each rung in ``trained``.

    Returns:
        `rung`; `n_runs`, `n_images`; `dice` with `dice_low` and `dice_high`; the change from the rung before as
        `change`, `change_low` and `change_high`, with its p value after Holm's correction over the changes trained so
        far as `change_p`, and that of the corrected resampled t test as `change_p_t`; the change from the first rung as
        `total`, `total_low` and `total_high`, all missing for the first; `validation_dice`, the Dice by which the
        validation part chose the epoch, mean over the runs; `detected` (share of the lesions that are found); the share
        of normal images with a finding, `normals_fpr` at each run's own threshold and `normals_at_95` where
        `SENSITIVITY` of the lesion images are touched, each with the lowest and the highest share of a run, e.g.
        `normals_fpr_min` and `normals_fpr_max`; `parameters` of the network; `milliseconds` of training per image.
    """
    scores = {rung: trained.of(rung).images for rung in trained.variants}
    steps = [(after, before) for before, after in pairwise(scores)]
    compared = compare_pairs(scores, steps, ratio=find_test_ratio(trained.images, trained.runs))
    changes = compared.set_index("a")[[*CHANGE]].rename(columns=CHANGE)
    baseline = lesion_images(scores[trained.variants[0]])
    rows = []
    for rung in scores:
        own = trained.of(rung)
        runs = own.runs
        # An epoch shows every training image once, except for those left over after the last full batch.
        trained_images = runs.epochs * runs.images
        row = {"rung": rung, "n_runs": len(runs)} | summarize(own.images, own.pooled)
        shares = normals_with_finding(own.images)
        row |= {"normals_fpr_min": shares.min(), "normals_fpr_max": shares.max()}
        shares = normals_at_sensitivity(own.images, SENSITIVITY)
        row |= {"normals_at_95": shares.mean(), "normals_at_95_min": shares.min(), "normals_at_95_max": shares.max()}
        if rows:
            total = difference_interval(baseline, lesion_images(own.images))
            row |= dict(zip(TOTAL, total, strict=True))
        row |= {"validation_dice": runs.validation_dice.mean(), "parameters": runs.parameters.iloc[0]}
        rows.append(row | {"milliseconds": 1000 * runs.seconds.sum() / trained_images.sum()})
    table = pd.DataFrame(rows).join(changes, on="rung")
    columns = ["rung", "n_runs", "n_images", "dice", "dice_low", "dice_high", *CHANGE.values(), *TOTAL]
    columns += ["validation_dice", "detected", "normals_fpr", "normals_fpr_min", "normals_fpr_max"]
    columns += ["normals_at_95", "normals_at_95_min", "normals_at_95_max", "parameters", "milliseconds"]
    return table.reindex(columns=columns)


@display.style()
def draw(table: pd.DataFrame) -> Figure:
    """Draw each rung's Dice, the change that leads to it with its interval, and the normal images with a finding."""
    places = np.arange(len(table))
    size = (display.WIDTH, 1.8 + 0.5 * len(table))
    fig, (dice, normals) = plt.subplots(1, 2, figsize=size, sharey=True, width_ratios=[3, 2])
    change = table.change.fillna(0)
    # A bar begins where the rung before it ended.
    before = table.dice - change
    colours = np.where(change >= 0, display.OURS, display.PINK)
    dice.barh(places, change, 0.5, left=before, color=colours, alpha=0.7)
    dice.hlines(places, before + table.change_low, before + table.change_high, color=display.BLACK)
    dice.plot(table.dice, places, "o", color=display.BLACK)
    dice.set(xlabel="Held-out Dice")
    dice.locator_params(axis="x", nbins=5)
    display.name_rows(dice, table.rung)
    normals.plot(table.normals_fpr, places, "o", color=display.PUBLISHED, label="own threshold")
    normals.plot(table.normals_at_95, places, "D", color=display.ORANGE, label=f"{SENSITIVITY:.0%} of lesions touched")
    normals.set(xlim=(-0.05, 1.05), xlabel="Normals with a finding")
    display.add_legend(fig)
    told = len(find_effects(table))
    changes = display.count(len(table) - 1, "change")
    move = display.agree(told, "moves", "move")
    display.add_title(fig, f"{told or 'None'} of {changes} {move} Dice beyond chance")
    return fig


def find_effects(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `tabulate` whose change is told from zero, the largest change first."""
    # Not by the interval: with a dozen changes without effect, one of them excludes 0 in nearly every second ladder.
    effects = table[table.change_p < SIGNIFICANCE]
    return effects.reindex(effects.change.abs().sort_values(ascending=False).index)


def conclude(table: pd.DataFrame, size: str, planned: int) -> str:
    """Return what matters: the changes that are told from chance, and where all changes together lead.

    Args:
        table: As `tabulate`.
        size: Sizes of the first and the last rung, as `describe_ends`.
        planned: Number of rungs, including those that are not trained yet.
    """
    first = table.iloc[0]
    last = table.iloc[-1]
    goals = "".join(f"{judge_goals(row)} " for _, row in table[table.rung == GOAL_RUNG].iterrows())
    own = " to ".join(_tell_normals(row, "normals_fpr") for row in (first, last))
    equal = " to ".join(_tell_normals(row, "normals_at_95") for row in (first, last))
    changes = [
        _tell_effects(table, planned),
        _tell_largest_other(table),
        f"{_tell_total(table)}{_tell_best_before_last(table)}.",
    ]
    return (
        f"{' '.join(filter(None, changes))} Normal images with a finding go from {own}; at the threshold that touches "
        f"{SENSITIVITY:.0%} of the lesions, from {equal}. {goals}Told from chance: p below "
        f"{SIGNIFICANCE} after Holm's correction. Sizes: {size}."
    )


def list_answers(parameters: Parameters) -> list[str]:
    """Return what matters as short texts in Markdown, for the summary; none as long as `show` says so."""
    group = find_groups(parameters).get(GROUP)
    # A user's own study may have no recipe.
    planned = group.variants if group else {}
    trained = take_whole_rungs(load_results(parameters, GROUP), planned) if planned else empty_results()
    if len(trained.variants) < 2:
        return []
    table = results.read_table(parameters, "recipe")
    first, last = (_tell_normals(table.iloc[place], "normals_fpr") for place in (0, -1))
    effects = _tell_effects(table, len(planned))
    return [
        f"**What does move Dice?** The recipe adds one change after another; each step is a rung. {effects} "
        f"{_tell_total(table)}. Sizes: {describe_ends(trained)}.",
        f"**Normal images with a finding**, at each network's own threshold: {first} at the first of these rungs, "
        f"{last} at the last.",
    ]


def _tell_effects(table: pd.DataFrame, planned: int) -> str:
    """Return which changes are told from chance, and for which of them the stricter test agrees."""
    number = len(table) - 1
    changes = display.count(number, "change")
    if len(table) < planned:
        changes = f"the first {number} of {planned - 1} planned changes"
    told = []
    for row in find_effects(table).itertuples():
        strict = "confirmed" if row.change_p_t < SIGNIFICANCE else "not confirmed"
        told.append(f"{_tell_change(row)} ({strict} by the corrected resampled t test)")
    if not told:
        return f"Of {changes}, none can be told from chance."
    return f"Of {changes}, {len(told)} {display.agree(len(told), 'is', 'are')} told from chance: {'; '.join(told)}."


def _tell_total(table: pd.DataFrame) -> str:
    first = table.iloc[0]
    last = table.iloc[-1]
    total = format_interval(Interval(last.total, last.total_low, last.total_high))
    return f"All together lead from Dice {first.dice:.3f} to {last.dice:.3f}: {total}"


def _tell_largest_other(table: pd.DataFrame) -> str:
    """Return the largest change that is not told from chance; empty if there is none."""
    effects = find_effects(table)
    others = table[table.change.notna() & ~table.rung.isin(effects.rung)]
    if not len(others):
        return ""
    largest = others.loc[others.change.abs().idxmax()]
    which = "The largest of the others" if len(effects) else "The largest"
    return f"{which}: {_tell_change(largest)}, p = {largest.change_p:.3f} after Holm."


def _tell_best_before_last(table: pd.DataFrame) -> str:
    earlier = table.iloc[:-1]
    # Of two rungs, the last one is the only one that follows the first.
    if len(earlier) < 2:
        return ""
    best = earlier.loc[earlier.dice.idxmax()]
    return f"; the rung {best.rung} has {best.dice:.3f}, the highest before the last"


def _tell_change(row: pd.Series) -> str:
    change = Interval(row.change, row.change_low, row.change_high)
    return f"{row.rung}, {format_interval(change)}"


def _tell_normals(row: pd.Series, name: str) -> str:
    return f"{row[name]:.0%} ({row[f'{name}_min']:.0%} to {row[f'{name}_max']:.0%} in single runs)"


def judge_goals(rung: pd.Series) -> str:
    """Return whether a rung, a row of `tabulate`, reaches the two goals that held-out images decide."""
    dice = rung.dice >= GOAL_DICE and rung.dice_low > GOAL_LOW
    normals = rung.normals_fpr < GOAL_NORMALS
    return (
        f"{BEFOREHAND}: {tell_goal(f'Dice of at least {GOAL_DICE} with its interval above {GOAL_LOW}', dice)}; "
        f"{tell_goal(f'a finding in fewer than {GOAL_NORMALS:.0%} of the normal images', normals)}."
    )


def tell_goal(goal: str, reached: bool) -> str:
    """Return a goal with what became of it."""
    return f"{goal} ({'reached' if reached else 'missed'})"


@section.presents("recipe")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/recipe.csv``."""
    planned = find_group(parameters, GROUP).variants
    trained = take_whole_rungs(load_results(parameters, GROUP), planned)
    if len(trained.variants) < 2:
        raise results.NotMeasured(f"{GROUP}: there is no change to show yet; run the study with its data")
    table = results.write_table(parameters, "recipe", tabulate(trained))
    # A rung may change the size itself.
    size = describe_ends(trained)
    return section.compose(
        draw(table),
        table.assign(**table[["change_p", "change_p_t"]].map(format_p)).rename(columns=HEADINGS),
        conclude(table, size, len(planned)),
        caption="Left: Dice of each rung (dots), the change from the rung above (bars) and its 95 % interval (lines). "
        "Blue is up, pink is down. Right: share of normal images in which anything is marked, at the run's own "
        f"threshold and at equal sensitivity. Sizes: {size}; each rung changes what its name says. The pages of the "
        "tables may have more seeds of the baseline.",
        table_caption="The rungs of the recipe. Intervals cover images, near-duplicates together, and trainings; "
        "p values (t test: the corrected resampled one) are corrected by Holm for the changes trained so far. Total: "
        "change from the first rung. Detected: share of lesions that a marked region overlaps with an IoU of at least "
        f"{HIT_IOU}. Normals with a finding: their share of the normal images; normals at 95 %: the same where 95 % of "
        "the lesion images are touched, if only by a pixel, by the whole probability map, before smaller regions are "
        "removed. Validation dice: of the epoch that was chosen, before predictions are mirrored and smaller regions "
        "removed. Milliseconds of training per image are those of the machine that trained the rung, and can be "
        "compared within one machine only.",
        digits={"parameters": 0, "milliseconds": 1},
    )
