"""Common parts of the sections, each of which explains a published number by an experiment.

A section is one module. Its `measure` returns the numbers, `tabulate` makes a table of them, `draw` a figure and
`conclude` a sentence from that table, and `show` presents all three to a notebook.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

from busi import display
from busi.config import Parameters, RunConfig
from busi.results import NotMeasured, Results, read_findings, record_finding
from busi.scoring.statistics import mean_interval

NOT_RUN = "Not run yet."

TITLES = {
    "floors": "Floors",
    "collapse": "Collapse",
    "identity": "KLD is BCE",
    "misalignment": "Misalignment",
    "flips": "Augmenting the image without its mask",
    "checkerboards": "Checkerboards",
    "leakage": "Leakage",
    "ladder": "The ladder",
}
"""Titles of all sections by module, in the order in which their conclusions are listed."""


@dataclass(frozen=True)
class Section:
    """Figure, table and conclusion of a section.

    Attributes:
        figure: Figure with caption and alternative text.
        table: Small table; the whole of it is in ``tables/mechanisms_<section>.csv``.
        conclusion: One sentence of Markdown, computed from the numbers.
    """

    figure: HTML
    table: HTML
    conclusion: str


def compose(
    figure: Figure,
    table: pd.DataFrame,
    conclusion: str,
    *,
    caption: str,
    table_caption: str,
    digits: int | Mapping[str, int] = 4,
) -> Section:
    """Return a section of a figure and a table with their captions, and a conclusion."""
    return Section(
        # Readers who cannot see the figure are told what it shows: the conclusion.
        figure=display.figure(figure, caption=caption, alt=conclusion),
        table=display.table(table, caption=table_caption, digits=digits),
        conclusion=conclusion,
    )


def presents(name: str) -> Callable:
    """Return a decorator for the `show` of section ``name``, a function of the parameters that returns a `Section`.

    The conclusion is recorded under "mechanisms" in ``findings.json``. If some of the numbers have not been measured,
    the section says so in place of figure, table and conclusion.
    """

    def decorate(make: Callable[[Parameters], Section]) -> Callable[[Parameters], Section]:
        @wraps(make)
        def show(parameters: Parameters) -> Section:
            try:
                section = make(parameters)
            except NotMeasured:
                title = TITLES[name]
                table = pd.DataFrame({"result": [NOT_RUN]})
                section = compose(_draw_not_run(), table, NOT_RUN, caption=title, table_caption=title)
            # Also where nothing has been run, so that no earlier conclusion is left standing.
            facts = {name: section.conclusion}
            record_finding(parameters, "mechanisms", **facts)
            return section

        return show

    return decorate


@display.style()
def _draw_not_run() -> Figure:
    fig, ax = plt.subplots(figsize=(6.4, 1.2))
    ax.text(0.5, 0.5, NOT_RUN, ha="center", va="center")
    ax.axis("off")
    return fig


def collect_conclusions(parameters: Parameters) -> pd.DataFrame:
    """Return the recorded conclusions of all sections: `section` (title) and `conclusion`, in the order of `TITLES`."""
    recorded = read_findings(parameters).get("mechanisms", {})
    rows = [{"section": title, "conclusion": recorded.get(name, NOT_RUN)} for name, title in TITLES.items()]
    return pd.DataFrame(rows)


def list_sections(sections: Mapping[str, Section]) -> str:
    """Return the conclusions of some sections, by module, as a list in Markdown."""
    lines = [f"- **{TITLES[name]}.** {section.conclusion}" for name, section in sections.items()]
    return "\n".join(lines)


def describe_size(config: RunConfig) -> str:
    """Return the size of a run in words, e.g. "64 pixels, 16 filters, at most 40 epochs"."""
    # Of a held-out run, the validation part chooses one epoch, and may end the training early.
    limit = "at most " if config.protocol == "heldout" else ""
    return f"{config.image_size} pixels, {config.base_filters} filters, {limit}{count_epochs(config.epochs)}"


def count_epochs(number: int) -> str:
    """Return a number of epochs in words, e.g. "1 epoch"."""
    return f"{number} epoch" if number == 1 else f"{number} epochs"


def tested_lesions(trained: Results, variant: str) -> pd.DataFrame:
    """Return the scores of the lesion images that a variant's held-out runs were tested on.

    Raises:
        NotMeasured: The variant has no run yet.
    """
    images = trained.of(variant).images
    if images.empty:
        raise NotMeasured(f"{variant}: not trained yet; run the study with its data and train_missing: true")
    # Normal images have no Dice.
    return images[images.image_class != "normal"]


def score_variants(trained: Results) -> pd.DataFrame:
    """Return the held-out Dice of each variant.

    Returns:
        `variant`, `dice` (mean over lesion images) with `low` and `high`, `n_images`, `epochs` (of the longest run).
    """
    rows = []
    for variant in trained.variants:
        images = tested_lesions(trained, variant)
        epochs = trained.of(variant).runs.epochs.max()
        rows.append({"variant": variant} | average_dice(images) | {"n_images": len(images), "epochs": epochs})
    return pd.DataFrame(rows)


def average_dice(images: pd.DataFrame) -> dict[str, float]:
    """Compute the mean Dice of images and its interval, resampling near-duplicates together: `dice`, `low`, `high`.

    Images without a Dice are left out.
    """
    # A target that the network's output does not see has no Dice.
    scored = images[images.dice.notna()]
    if scored.empty:
        return {}
    mean, low, high = mean_interval(scored.dice, scored.group)
    return {"dice": mean, "low": low, "high": high}
