"""What the gallery shows: each variant's best, median and worst held-out case, and which lesions are hard for all."""

import html

import pandas as pd
from IPython.display import HTML

from busi.dataset.catalog import Catalog
from busi.evaluation import statistics
from busi.lab.networks import Case, Variant, picture
from busi.report import display, figures


def distinct(variants: dict[str, Variant]) -> dict[str, Variant]:
    """Variants with runs of their own, each under the first of its names: families share their baseline."""
    firsts = {variant.runs: label for label, variant in reversed(variants.items())}
    return {label: variant for label, variant in variants.items() if firsts[variant.runs] == label}


def cases(variant: Variant, data: Catalog) -> dict[str, Case]:
    """The variant's "best", "median" (the lower one of two) and "worst" held-out lesion image by Dice."""
    names = variant.per_image.dropna(subset="dice").sort_values(["dice", "name"]).name.tolist()
    chosen = {"best": names[-1], "median": names[(len(names) - 1) // 2], "worst": names[0]}
    return {rank: variant.case(name, *picture(data, name)) for rank, name in chosen.items()}


def shown(variants: dict[str, Variant], data: Catalog) -> HTML:
    """A heading and a figure a variant, with its `cases`: image, both outlines, probability map, scores."""
    figures = {label: _figure(label, cases(variant, data)) for label, variant in variants.items()}
    return HTML("".join(f"<h3>{html.escape(label)}</h3>{figure}" for label, figure in figures.items()))


def lesions(variants: dict[str, Variant]) -> pd.DataFrame:
    """Every held-out lesion image: `image_class`, `name`, `group`, `lesion_share`; its mean `dice` over variants."""
    keys = ["image_class", "name", "group", "lesion_share"]
    scores = pd.concat([variant.per_image for variant in variants.values()]).dropna(subset="dice")
    return scores.groupby(keys, sort=False).dice.mean().reset_index()


def conclusion(lesions: pd.DataFrame) -> str:
    """How Dice depends on class and size, and which lesion is the hardest, Markdown.

    Args:
        lesions: As `lesions`.
    """
    parts = pd.concat(
        [
            statistics.by(lesions, column).rename(columns={column: "part"}).astype({"part": str})
            for column in ("image_class", "lesion_size")
        ]
    )
    means = ", ".join(f"{row.part} {row.dice:.3f} ({row.n_images})" for row in parts.itertuples())
    hardest = lesions.loc[lesions.dice.idxmin()]
    return (
        f"Mean Dice over variants by class and by size of the lesion (images): {means}. The hardest of {len(lesions)} "
        f"lesion images is {hardest['name']}, with a mean Dice of {hardest.dice:.3f}."
    )


def _figure(label: str, found: dict[str, Case]) -> str:
    figure = figures.cases(found, width=2.1)
    # The caption, not the titles: on a narrow screen the figure's letters are small.
    told = ". ".join(f"{rank.capitalize()}: {case.name}, {case.described}" for rank, case in found.items())
    return display.figure(figure, caption=f"{told}.", alt=f"{label}. {told}.", raster=True).data
