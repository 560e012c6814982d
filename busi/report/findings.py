"""What the numbers say, in sentences computed from them."""

from collections.abc import Mapping

import pandas as pd

from busi.report.tables import on_floor
from busi.runs import Run
from busi.study import Runs


def of_table(table: pd.DataFrame, runs: Runs, planned: int) -> str:
    """One paragraph for a table of `busi.report.tables.table`: where the rows stand, which never predict a lesion.

    Args:
        table: Ours beside the published numbers and the floor.
        runs: Method -> its runs, of which there may be none.
        planned: Epochs that the profile plans.
    """
    sentences = []
    for row in table.itertuples():
        if not runs.get(row.method):
            sentences.append(f"**{row.method}** has not been run yet.")
            continue
        reached = min(run.config.epochs for run in runs[row.method])
        part = "" if reached == planned else f" (after {reached} of {planned} epochs)"
        sentences.append(
            f"**{row.method}**{part} ends at loss {row.loss:.4f} (published {row.published_loss:.4f}, floor "
            f"{row.floor_loss:.4f}), accuracy {row.accuracy:.4f} ({row.published_accuracy:.4f}), AUC {row.auc:.4f} "
            f"({row.published_auc:.4f}) and {'predicts' if row.predicts_lesion else '**never predicts**'} a lesion."
        )
    return " ".join(sentences)


def on_the_floor(rows: pd.DataFrame, floor: float) -> str:
    """How many of the distinct published rows have the accuracy of "background everywhere", and how many of ours.

    Args:
        rows: `row`, `accuracy` (published), `ours` (missing where there is no run).
        floor: That accuracy.
    """
    published, ours = on_floor(rows.accuracy, floor), rows.ours.dropna()
    named = "; ".join(rows.row[published]).rstrip(".")
    text = (
        f"{published.sum()} of the {len(rows)} distinct published rows {_verb(published.sum(), 'has', 'have')}, within "
        f"0.0001, the accuracy of a "
        f"predictor that calls every pixel background ({floor:.4f}){': ' if named else ''}{named}."
    )
    if len(ours):
        count = int(on_floor(ours, floor).sum())
        rows_run = _verb(len(ours), "one row", f"{len(ours)} rows")
        text += f" Rebuilt, {count} of the {rows_run} run so far {_verb(count, 'does', 'do')}."
    return text


def of_dataset(table: pd.DataFrame) -> str:
    """How many images and lesions there are and how little of an image is lesion.

    Args:
        table: As `busi.dataset.catalog.gathered`.
    """
    lesions = table[table.image_class != "normal"]
    several = int((lesions.masks > 1).sum())
    return (
        f"{len(table)} images, {len(lesions)} with a lesion. Half of the lesions cover less than "
        f"{lesions.lesion_share.median():.1%} of their image, so a predictor that never finds one is still right on "
        f"{1 - lesions.lesion_share.mean():.1%} of the pixels. {several} {_verb(several, 'image has', 'images have')} "
        f"more than one mask; the published "
        f"code reads the first only."
    )


def progress(runs: list[Run], planned: int) -> str:
    """How many runs there are, and which of them have fewer epochs than the profile plans.

    Args:
        runs: Each once, as from `distinct`.
        planned: Epochs.
    """
    if not runs:
        return "No run has been trained under this profile yet."
    short = [run for run in runs if run.config.epochs < planned]
    text = f"{len(runs)} {_verb(len(runs), 'run has', 'runs have')} been trained under this profile"
    if not short:
        return f"{text}, {_verb(len(runs), '', 'all of them ')}for {planned} epochs."
    names = "; ".join(f"{run.config.name} seed {run.config.seed} after {run.config.epochs}" for run in short)
    stop = _verb(len(short), "stops", "stop")
    return f"{text}; {len(short)} of them {stop} short of the {planned} epochs planned: {names}."


def heldout_progress(finished: int, planned: int) -> str:
    """How many of a family's held-out runs there are, and what that means for its tables.

    Args:
        finished: Runs that have been trained.
        planned: Runs that the profile plans.
    """
    if not finished:
        return f"No held-out run has been trained yet; {planned} {_verb(planned, 'is', 'are')} planned."
    if finished >= planned:
        return f"All {planned} held-out runs have been trained."
    return (
        f"{finished} of {planned} held-out runs have been trained. Rows with different numbers of images do not "
        "compare; the pairwise table takes only images that both variants have scored."
    )


def blind(counts: Mapping[str, tuple[int, int]]) -> str:
    """Which variants have runs that never find anything; empty where there are none.

    Args:
        counts: As `busi.report.heldout.Answers.blind`.
    """
    told = ", ".join(f"{variant} {found} of {runs}" for variant, (found, runs) in counts.items())
    return f"Runs that mark no pixel of their held-out lesion images: {told}." if told else ""


def of_heldout(table: pd.DataFrame) -> str:
    """One paragraph for a table of `busi.report.heldout.Answers.table`: each row's Dice, its images, where it stands.

    Args:
        table: Networks and untrained predictors.
    """
    sentences = []
    for row in table.itertuples():
        if not row.n_images:
            sentences.append(f"**{row.variant}** has not been run yet.")
            continue
        runs = f", {row.n_runs} {_verb(row.n_runs, 'run', 'runs')}" if row.n_runs else ", untrained"
        sentences.append(
            f"**{row.variant}** has a mean Dice of {row.dice:.3f} (95 % interval {row.dice_low:.3f} to "
            f"{row.dice_high:.3f}; {row.n_images} {_verb(row.n_images, 'image', 'images')}{runs}) at a pixel accuracy "
            f"of {row.accuracy:.3f}."
        )
    return " ".join(sentences) or "Nothing has been scored yet."


def by_part(parts: pd.DataFrame) -> str:
    """Each predictor's mean Dice on each part of the images.

    Args:
        parts: As `busi.report.heldout.Answers.parts`.
    """
    rows = [
        f"{variant}: {', '.join(f'{row.part} {row.dice:.3f}' for row in found.itertuples())}"
        for variant, found in parts.groupby("variant", sort=False)
    ]
    return f"Mean Dice by class and size of the lesion. {'; '.join(rows) or 'Nothing has been scored yet'}."


def of_pairs(pairs: pd.DataFrame, alpha: float) -> str:
    """How many of a family's pairs differ, and by how much.

    Args:
        pairs: As `busi.report.heldout.Answers.pairs`.
        alpha: Below which a corrected p counts.
    """
    if not len(pairs):
        return "There are no two variants to compare yet."
    apart = int((pairs.p_holm < alpha).sum())
    widest = pairs.loc[pairs.difference.abs().idxmax()]
    return (
        f"{apart} of {len(pairs)} {_verb(len(pairs), 'pair', 'pairs')} {_verb(apart, 'differs', 'differ')} at "
        f"p < {alpha} after Holm's correction. The widest difference is {widest.a} − {widest.b}: "
        f"{widest.difference:+.3f} Dice (95 % interval {widest.low:+.3f} to {widest.high:+.3f}), on {widest.n_images} "
        "images."
    )


def of_reliability(curves: dict[str, pd.DataFrame]) -> str:
    """Where each network's most confident pixels stand: what it says of them, and how many are lesion."""
    rows = [
        f"{variant}: of the pixels with a mean probability of {curve.predicted.iloc[-1]:.2f}, the highest bin, "
        f"{curve.observed.iloc[-1]:.1%} are lesion"
        for variant, curve in curves.items()
    ]
    return f"Observed share of lesion against predicted probability. {'; '.join(rows) or 'No network has run yet'}."


def near_duplicates(split: pd.DataFrame, counts: pd.DataFrame, bound: int) -> str:
    """How many images have near-duplicates, in how many groups, and how many pairs are near.

    Args:
        split: `group` of each image, as `busi.dataset.splits.make`.
        counts: `distance` and `pairs`, as `busi.report.heldout.near_duplicates`.
        bound: The largest distance of near-duplicates, bits of 64.
    """
    sizes = split.group.value_counts()
    several = sizes[sizes > 1]
    near = counts.pairs[counts.distance <= bound].sum()
    largest = f", the largest of {several.max()}" if len(several) else ""
    groups = f"{len(several)} {_verb(len(several), 'group', 'groups')}{largest}"
    return (
        f"{near} of {counts.pairs.sum():,} pairs of images differ in at most {bound} bits of both hashes. They tie "
        f"{several.sum()} of {len(split)} images into {groups}; a "
        "group never stands on two sides of a split."
    )


def of_split(split: pd.DataFrame) -> pd.DataFrame:
    """One row a fold: `fold`, images of its training, validation and test part, and the test part's by class.

    Args:
        split: As `busi.dataset.splits.make`.
    """
    lesions = split[split.image_class != "normal"]
    rows = []
    for fold in split.filter(regex=r"^fold\d$"):
        test = split[split[fold] == "test"].image_class.value_counts()
        rows.append(
            {
                "fold": fold.removeprefix("fold"),
                **{part: int((lesions[fold] == part).sum()) for part in ("training", "validation")},
                **{f"test, {name}": int(test.get(name, 0)) for name in split.image_class.unique()},
            }
        )
    return pd.DataFrame(rows)


def plain(markdown: str) -> str:
    """A sentence without its emphasis marks, for alternative text."""
    return markdown.replace("**", "")


def distinct(runs: dict[str, Runs]) -> list[Run]:
    """All families' runs, each once, whatever number of tables it stands in."""
    every = [run for variants in runs.values() for found in variants.values() for run in found]
    return list({run.folder: run for run in every}.values())


def by_class(images: pd.DataFrame) -> pd.DataFrame:
    """One row a class: `class`, `images`, `several_masks`, median `width` and `height` (pixels), `lesion_area` (share).

    Args:
        images: As `busi.dataset.catalog.gathered`.
    """
    grouped = images.assign(several=images.masks > 1).groupby("image_class", sort=False)
    return (
        grouped.agg(
            images=("name", "size"),
            several_masks=("several", "sum"),
            width=("width", "median"),
            height=("height", "median"),
            lesion_area=("lesion_share", "median"),
        )
        .astype({"width": int, "height": int})
        .rename_axis("class")
    )


def lesion_shares(runs: Runs) -> str:
    """Each variant's share of pixels predicted lesion in its last epoch."""
    ends = [f"{name}: {run.history.lesion_share.iloc[-1]:.2%}" for name, found in runs.items() for run in found]
    return "Pixels predicted lesion in the last epoch. " + "; ".join(ends)


def loss_curve(method: str, runs: list[Run], published: float) -> str:
    """Where each run's training loss starts and ends."""
    ends = [
        f"seed {run.config.seed} goes from {run.history.loss.iloc[0]:.4f} to {run.history.loss.iloc[-1]:.4f} "
        f"in {run.config.epochs} epochs"
        for run in runs
    ]
    return f"Training loss of {method}: {'; '.join(ends) or 'not run yet'}; published {published:.4f} after 75."


def of_network(blocks: list[dict]) -> str:
    """The sizes and filters of a network's feature maps, in the order of computation."""
    return "U-Net: " + ", ".join(f"{block['size']} pixels with {block['filters']} filters" for block in blocks)


def _verb(count: int, one: str, many: str) -> str:
    return one if count == 1 else many
