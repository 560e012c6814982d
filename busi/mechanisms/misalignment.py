"""Misalignment: the cost of squeezing the whole mask onto an output that covers only the middle of the image."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from busi import display, results
from busi.config import Parameters, RunConfig
from busi.dataset import arrays, duplicates, splits
from busi.dataset.arrays import lesion_channel, resize_image
from busi.dataset.catalog import Catalog, read_union
from busi.mechanisms import section
from busi.runs import Run
from busi.scoring import metrics
from busi.scoring.metrics import dice
from busi.scoring.statistics import difference_interval, format_interval
from busi.study import published_targets_config

GROUP = "mechanisms/misalignment"


def measure(parameters: Parameters) -> pd.DataFrame:
    """Return one row for each lesion image, at the published size.

    Returns:
        `image_class`, `name`, `group`; `dice`, `accuracy` and `background` as `compare_targets`; `outside`: the share
        of the lesion's pixels that the output does not cover, missing for a lesion smaller than a pixel of the input.
    """
    config = published_targets_config(parameters)

    def make(catalog: Catalog) -> pd.DataFrame:
        rows = []
        for image in catalog.lesions.itertuples():
            # Only the first mask, as in the published targets.
            squeezed, aligned, whole = make_targets(read_union(image.masks[:1]), config)
            outside = 1 - aligned.sum() / whole.sum() if whole.any() else np.nan
            rows.append({"name": image.name} | compare_targets(squeezed, aligned) | {"outside": outside})
        identity = splits.load_split(catalog, "grouped")[["image_class", "name", "group"]]
        return identity.merge(pd.DataFrame(rows), on="name")

    depends = [config.model_dump_json(), splits.read_split_file("grouped")]
    return results.measure(parameters, GROUP, make, depends=depends, code=(arrays, metrics, splits, duplicates))


def make_targets(inside: np.ndarray, config: RunConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the squeezed and the aligned target of one image, bool (o, o), and its mask at input size, bool (s, s).

    Args:
        inside: Mask at the image's original size, bool (h, w).
        config: Only its `image_size`, `padding` and `resize` are used.
    """
    # Only the target differs: all other settings of the study are the same in both.
    squeezed = lesion_channel(inside, config.model_copy(update={"target": "squeezed"}))
    aligned = lesion_channel(inside, config.model_copy(update={"target": "aligned"}))
    whole = resize_image(inside.astype(np.float32), config.image_size, config.resize)
    return squeezed >= 0.5, aligned >= 0.5, whole >= 0.5


def compare_targets(squeezed: np.ndarray, aligned: np.ndarray) -> dict[str, float]:
    """Score a perfect segmenter, which marks exactly the lesion in what its output covers, against the squeezed target.

    Args:
        squeezed: The published target, bool (o, o).
        aligned: The perfect segmenter's answer, bool (o, o).

    Returns:
        `dice` (missing if ``squeezed`` is empty) and `accuracy` of the answer; `background`: the accuracy of
        "background everywhere". Targets are cut off at one half; under the soft ones, as in
        `busi.mechanisms.floors`, every soft pixel counts as background.
    """
    accuracy = float((squeezed == aligned).mean())
    return {"dice": dice(squeezed, aligned), "accuracy": accuracy, "background": float((~squeezed).mean())}


def score_crop(run: Run, catalog: Catalog) -> pd.DataFrame:
    """Score a run on what its output covers of each image, against the aligned target, whatever its training target.

    The threshold is chosen in the same way on the validation part.

    Returns:
        One row for each tested lesion image: `name`; `dice`, missing where it covers no lesion; `marked`, share of
        pixels predicted lesion; `everywhere`, the Dice of "lesion everywhere", missing like `dice`.
    """
    threshold = section.choose_threshold(run, catalog, "aligned")
    rows = []
    for name, target, probability in section.pair_answers(run, "test", catalog, "aligned"):
        truth = target[..., 0] >= 0.5
        marked = probability >= np.float64(threshold)
        everywhere = dice(truth, np.ones_like(truth))
        rows.append({"name": name, "dice": dice(truth, marked), "marked": marked.mean(), "everywhere": everywhere})
    return pd.DataFrame(rows)


def tabulate(per_image: pd.DataFrame) -> pd.DataFrame:
    """Return means over all images, and over each class, of what `measure` returns.

    Returns:
        `images`, `n_images`, `n_dice`, `dice` with `low` and `high`, `accuracy`, `background` and `outside`.
    """
    both = pd.concat([per_image.assign(images="all"), per_image.assign(images=per_image.image_class)])
    return section.score_variants(both, "accuracy", "background", "outside", by="images")


@display.style()
def draw(table: pd.DataFrame) -> Figure:
    """Draw the accuracy of a perfect segmenter and of background everywhere under the squeezed target, by class."""
    names = {"accuracy": "perfect segmenter", "background": "background everywhere"}
    # One row for each bar, as seaborn takes them.
    bars = table.rename(columns=names).melt("images", list(names.values()), "predictor", "accuracy")
    colours = [display.OURS, display.FLOOR]
    fig, ax = plt.subplots(figsize=(display.WIDTH, 3.8))
    sns.barplot(bars, x="images", y="accuracy", hue="predictor", palette=colours, saturation=1, gap=0.1, ax=ax)
    for container in ax.containers:
        ax.bar_label(container, fmt="%.3f", fontsize=10)
    ax.set(xlabel="", ylabel="Accuracy, squeezed target", ylim=(0, 1.1))
    display.add_legend(fig)
    low, high = table.accuracy.min(), table.accuracy.max()
    display.add_title(fig, f"A perfect segmenter has accuracy {low:.3f} to {high:.3f} under the squeezed target")
    return fig


def tabulate_trained(scores: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each target trained on, as `busi.mechanisms.section.score_variants`."""
    return section.score_variants(scores, "marked", "everywhere")


def conclude(table: pd.DataFrame, scores: pd.DataFrame, published: RunConfig, trained: RunConfig, size: str) -> str:
    """Return what the misalignment costs a perfect segmenter at the published size, and networks of another size.

    Args:
        table: As `tabulate`.
        scores: Scores of the networks, as `score_crop` with `variant`.
        published: A configuration of the published size.
        trained: Configuration of one of the networks.
        size: Size and number of the networks, in words.
    """
    # The first row is over all images.
    row = table.iloc[0]
    verdict = "worse" if row.accuracy < row.background else "better"
    networks = tabulate_trained(scores)
    marked = []
    for target in networks.itertuples():
        own = scores[scores.variant == target.variant]
        beyond = difference_interval(own.assign(dice=own.everywhere), own)
        marked.append(
            f"Trained on the {target.variant} target they mark {target.marked:.0%} of the pixels and have Dice "
            f"{target.dice:.3f}, {format_interval(beyond)} from calling everything lesion."
        )
    # Compared run by run: both targets have the same folds and seeds.
    change = difference_interval(scores[scores.variant == "squeezed"], scores[scores.variant == "aligned"])
    perfect = (
        f"At {published.image_size} pixels, a perfect segmenter would reach accuracy {row.accuracy:.4f} under the "
        f"published target, {verdict} than {row.background:.4f} for background everywhere. (Pixels of one half or "
        "more count as lesion here, in the floor of accuracy only those that are wholly lesion.)"
    )
    covered = (
        f"That output covers {_covered_share(published):.0%} of the image, and does not reach {row.outside:.0%} of an "
        "average lesion. The published target and the one that matches what the output covers have a Dice of "
        f"{row.dice:.3f} ({row.low:.3f} to {row.high:.3f}, {row.n_dice} images)."
    )
    scored = (
        f"The networks trained here are smaller ({trained.image_size} pixels in, {trained.output_size} out). They are "
        f"scored on what their output covers, {_covered_share(trained):.0%} of each image, which holds lesion in "
        f"{networks.n_dice.iloc[0]} of {networks.n_images.iloc[0]} images."
    )
    aligning = f"Aligning the target changes Dice by {format_interval(change)}. Size of the networks: {size}."
    return " ".join([perfect, covered, scored, *marked, aligning])


def _covered_share(config: RunConfig) -> float:
    return (config.output_size / config.image_size) ** 2


@section.presents("misalignment")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``mechanisms_misalignment.csv`` and that of networks, ``_trained``."""
    trained, scores = section.measure_runs(parameters, GROUP, f"{GROUP}_trained", score_crop)
    table = results.write_table(parameters, "mechanisms_misalignment", tabulate(measure(parameters)))
    results.write_table(parameters, "mechanisms_misalignment_trained", tabulate_trained(scores))
    return section.compose(
        draw(table),
        table,
        conclude(
            table,
            scores,
            published_targets_config(parameters),
            trained.configs[0],
            section.describe_runs(trained),
        ),
        caption="Accuracy under the published target of a perfect segmenter, which marks exactly the lesion that its "
        "output covers, and of calling everything background.",
        table_caption="A perfect segmenter scored against the published, squeezed target: Dice with its interval, over "
        "the n dice images in which that target marks lesion, and accuracy. Background: accuracy of calling everything "
        "background. Outside: share of the lesion that the output does not cover. "
        f"Input: {parameters.image_size} pixels.",
    )
