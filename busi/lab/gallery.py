"""Gallery: the best, median and worst held-out case of each variant, and which lesions are hard for all variants."""

import html

import pandas as pd
from IPython.display import HTML

from busi import display
from busi.lab.networks import Case, Variant
from busi.report import figures
from busi.scoring import outlines


def drop_repeated(variants: dict[str, Variant]) -> dict[str, Variant]:
    """Return the variants without those that repeat the runs of an earlier one: families share their baseline."""
    distinct: dict[str, Variant] = {}
    seen = set()
    for label, variant in variants.items():
        if variant.runs not in seen:
            seen.add(variant.runs)
            distinct[label] = variant
    return distinct


def choose_cases(variant: Variant) -> dict[str, Case]:
    """Return the "best", "median" and "worst" held-out lesion image of a variant, as `outlines.choose_cases`."""
    chosen = outlines.choose_cases(variant.scores)
    return {rank: variant.case(row["name"]) for rank, row in chosen.items()}


def show_cases(variants: dict[str, Variant]) -> HTML:
    """Return a heading and a figure for each variant: the cases of `choose_cases` with outlines, map and scores."""
    parts = []
    for label, variant in variants.items():
        parts.append(f"<h3>{html.escape(label)}</h3>")
        parts.append(_show_figure(label, choose_cases(variant)))
    return HTML("".join(parts))


def average_dice(variants: dict[str, Variant]) -> pd.DataFrame:
    """Compute the mean `dice` over variants of each held-out lesion image.

    Returns:
        One row an image: `image_class`, `name`, `group`, `lesion_share`, `dice`.
    """
    keys = ["image_class", "name", "group", "lesion_share"]
    scores = pd.concat([variant.scores for variant in variants.values()])
    # Normal images have no Dice.
    lesions = scores.dropna(subset="dice")
    return lesions.groupby(keys, sort=False).dice.mean().reset_index()


def conclude(lesions: pd.DataFrame) -> str:
    """Return how Dice depends on class and size in ``lesions`` (`average_dice`), and which lesion image is hardest."""
    # Terciles of the rank, because equal shares could leave a tercile of the share empty.
    sizes = pd.qcut(lesions.lesion_share.rank(method="first"), 3, labels=["small", "medium", "large"])
    text = "In parentheses: number of images. "
    for words, column in {"class": lesions.image_class, "size of the lesion": sizes}.items():
        means = lesions.groupby(column, observed=True).dice.agg(["mean", "size"])
        parts = [f"{row.Index} {row.mean:.3f} ({row.size})" for row in means.itertuples()]
        text += f"Mean Dice over variants by {words}: {', '.join(parts)}. "
    hardest = lesions.loc[lesions.dice.idxmin()]
    return f"{text}The hardest of {len(lesions)} lesion images is {hardest['name']}: mean Dice {hardest.dice:.3f}."


def _show_figure(label: str, cases: dict[str, Case]) -> str:
    figure = figures.cases(cases, width=2.1)
    # Details go into the caption, because text inside the figure is small on a narrow screen.
    details = [f"{rank.capitalize()}: {case.name}, {case.description}." for rank, case in cases.items()]
    caption = " ".join(details)
    return display.figure(figure, caption=caption, alt=f"{label}. {caption}", raster=True).data
