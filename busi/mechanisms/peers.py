"""Peers: widely used networks, trained by other software on this study's folds and scored like the recipe.

A peer is a folder of masks, ``runs/<profile>/peers/<name>/``, one for each image, predicted by the network of the fold
that tests it (docs/ruler.md). How the masks are made is up to the peer; benchmarks/monai_unet.py makes some.
"""

import hashlib
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from busi import display, results
from busi.config import FOLDS, Parameters, StudyError, heldout_draws
from busi.dataset.catalog import Catalog
from busi.dataset.splits import load_split, read_split_file
from busi.mechanisms import recipe, section
from busi.results import NotMeasured, Results
from busi.scoring import metrics, ruler
from busi.scoring.scores import identify_images
from busi.scoring.statistics import Interval, difference_interval, format_interval, lesion_images, score_interval
from busi.study import find_group, load_results


def measure(parameters: Parameters) -> pd.DataFrame:
    """Return the scores of each peer's masks.

    Returns:
        `predictor` (name of the folder), the `fold` that tests the image, the `seed` of this study's first run of that
        fold (with which the peer is paired), and the columns of `busi.scoring.scores.Scores.images`.

    Raises:
        NotMeasured: There is no folder of masks, and none has been measured before.
        StudyError: A mask cannot be read, or a folder lacks one: what a peer leaves out would not count against it.
    """
    root = parameters.runs_path / "peers"
    here = {folder.name for folder in root.glob("*") if folder.is_dir()}
    # The masks of a peer may be on another machine: its table is all that is known of it here.
    measured = {file.stem for file in (parameters.results_path / "peers").glob("*.csv")}
    names = sorted(here | measured)
    if not names:
        raise NotMeasured(f"{root}: no peer; put a folder of masks there, as benchmarks/monai_unet.py does")
    return pd.concat([_measure_peer(parameters, root / name) for name in names], ignore_index=True)


def _measure_peer(parameters: Parameters, folder: Path) -> pd.DataFrame:
    def make(catalog: Catalog) -> pd.DataFrame:
        if not folder.is_dir():
            raise NotMeasured(f"{folder}: no such folder of masks")
        split = load_split(catalog, "grouped")
        described = identify_images(catalog, split.group).assign(fold=_find_test_folds(split))
        first = {draw["fold"]: draw["seed"] for draw in heldout_draws([0], list(range(FOLDS)))}
        described["seed"] = described.fold.map(first)
        scores = ruler.score_answers(catalog, ruler.read_masks(catalog, folder))
        missing = described.name[~described.name.isin(scores.name)]
        if len(missing):
            raise StudyError(
                f"{folder}: no mask for {len(missing)} of {len(described)} images, such as {missing.iloc[0]}; expected "
                "one for each image, empty where nothing is found: add them, or remove the folder"
            )
        return described.merge(scores, on="name").assign(predictor=folder.name)

    return results.measure(
        parameters,
        f"peers/{folder.name}",
        make,
        depends=[_hash_files(folder), read_split_file("grouped")],
        code=(ruler, metrics),
    )


def _find_test_folds(split: pd.DataFrame) -> np.ndarray:
    """Return the fold that tests each image, int (n,)."""
    parts = split[[f"fold{fold}" for fold in range(FOLDS)]].to_numpy()
    return (parts == "test").argmax(axis=1)


def _hash_files(folder: Path) -> str:
    # The name counts too: it becomes the name of the predictor.
    digest = hashlib.sha256(folder.name.encode())
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def tabulate(scores: pd.DataFrame, trained: Results) -> pd.DataFrame:
    """Return one row each for the baseline (the recipe's first rung), its last rung, and each peer.

    Args:
        scores: As `measure`.
        trained: Results of the recipe's rungs that have all their runs.

    Returns:
        `network`, `n_images` (with a lesion), `dice` with `low` and `high`; the change from the baseline as `change`,
        `change_low` and `change_high`, missing for the baseline; `normals_fpr`, share of normal images with a finding.
    """
    first, *others = trained.variants
    ends = {first: first} | {rung: f"recipe up to {rung}" for rung in others[-1:]}
    tables = {f"this study, {name}": trained.of(rung).images for rung, name in ends.items()}
    tables |= dict(iter(scores.groupby("predictor", sort=False)))
    baseline = lesion_images(next(iter(tables.values())))
    rows = []
    for network, images in tables.items():
        lesions = lesion_images(images)
        normals = images[images.image_class == "normal"]
        row = {"network": network, "n_images": lesions.name.nunique()}
        row["dice"], row["low"], row["high"] = score_interval(lesions)
        # The first one is the baseline itself.
        change = difference_interval(baseline, lesions) if rows else Interval(np.nan, np.nan, np.nan)
        row["change"], row["change_low"], row["change_high"] = change
        rows.append(row | {"normals_fpr": (normals.predicted_share > 0).mean()})
    return pd.DataFrame(rows)


@display.style()
def draw(table: pd.DataFrame) -> Figure:
    """Draw the Dice of each network with its 95 % interval."""
    fig, ax = plt.subplots(figsize=(display.WIDTH, 1.4 + 0.5 * len(table)))
    display.draw_intervals(ax, range(len(table)), table.dice, table.low, table.high)
    ax.set(xlabel="Dice of held-out images")
    display.name_rows(ax, table.network)
    display.add_title(fig, f"Networks have Dice {table.dice.min():.3f} to {table.dice.max():.3f} on the same images")
    return fig


def conclude(table: pd.DataFrame, size: str) -> str:
    """Return how the recipe's last rung and each peer compare with the study's baseline.

    Args:
        table: As `tabulate`.
        size: Sizes of this study's networks, in words.
    """
    first, *others = table.itertuples()
    text = f"The study's baseline has Dice {first.dice:.3f} ({first.low:.3f} to {first.high:.3f}). "
    for row in others:
        change = Interval(row.change, row.change_low, row.change_high)
        verdict = "cannot be told from the baseline"
        if change.low > 0:
            verdict = "is better than the baseline"
        if change.high < 0:
            verdict = "is worse than the baseline"
        text += f"{row.network[0].upper()}{row.network[1:]} {verdict}: {format_interval(change)}. "
    shares = [f"{row.network} {row.normals_fpr:.0%}" for row in (first, *others)]
    text += f"Normal images with a finding: {'; '.join(shares)}. "
    return f"{text}Sizes of this study's networks: {size}."


@section.presents("peers")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/peers.csv``."""
    scores = measure(parameters)
    planned = find_group(parameters, recipe.GROUP).variants
    trained = section.require(recipe.take_whole_rungs(load_results(parameters, recipe.GROUP), planned))
    table = results.write_table(parameters, "peers", tabulate(scores, trained))
    # A peer's own size is in its name, if anywhere.
    size = recipe.describe_ends(trained)
    return section.compose(
        draw(table),
        table,
        conclude(table, size),
        caption="Dice with 95 % intervals over images and runs: the recipe's first and last trained rung, and networks "
        f"that other software trained on the same folds. This study: {size}.",
        table_caption="This study's networks and peers on the same test images. Change: from the study's baseline; "
        "normals fpr: share of normal images with a finding.",
    )
