"""Notebook 5, section by section: a figure, a small table and one sentence, each from the numbers of a mechanism."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

from busi.config import Study
from busi.mechanisms import (
    checkerboards,
    collapse,
    compare,
    experiments,
    flips,
    identity,
    ladder,
    leakage,
    misalignment,
)
from busi.mechanisms import floors as constant
from busi.report import display, tables
from busi.report.display import STYLE
from busi.report.figures import FLOOR_LINE

BLUE, RED, GREEN = "#0072B2", "#D55E00", "#009E73"

STATES = {collapse.FINDS: ("o", None), collapse.PLATEAU: ("o", "white"), collapse.CONSTANT: ("X", "white")}
"""State of a network -> its marker and what fills it; None: the line's colour."""


@dataclass(frozen=True)
class Section:
    """What a notebook shows of one mechanism.

    Attributes:
        conclusion: One sentence, computed from the numbers.
        figure: With caption and alternative text.
        table: Small; its whole stands in ``tables/mechanisms_<section>.csv``.
    """

    conclusion: str
    figure: HTML
    table: HTML


def floors(study: Study) -> Section:
    """Section 1: the floors, and the nine published rows against them."""
    found, rows = constant.measured(study), tables.distinct_rows()
    exact = {} if found is None else found.set_index("metric").exact
    standing = [] if found is None else list(rows.row[tables.on_floor(rows.accuracy, exact["accuracy"])])
    conclusion = constant.conclusion(found, standing, len(rows))
    return _section(
        study,
        *("floors", found, conclusion, rows_against_floors(rows, exact) if len(exact) else not_run()),
        caption="The nine distinct published rows (dots) against a predictor that never looks (dashed).",
        table_caption="Each metric of a constant: by formula from the share s of lesion pixels, and exactly, soft and "
        "mirrored target pixels included.",
    )


def collapsing(study: Study) -> Section:
    """Section 2: optimizers and rates, and what the networks look like after training."""
    rows = collapse.measured(study)
    found = None if rows is None else collapse.table(rows)
    config = experiments.configs(study, "collapse")["SGD + momentum, 0.01"][0]
    return _section(
        study,
        *("collapse", found, collapse.conclusion(found)),
        sweep(found) if found is not None else not_run(),
        caption="Networks by optimizer and rate: filled, it finds lesions; hollow, on the floor's plateau; crossed, it "
        f"has become a constant. {_size(config)}, everything else as published save the padding.",
        table_caption="Every setting, and the network before training. Loss: mean over the epoch; the rest of the "
        "final weights.",
        digits={"dead_relus": 3, "gradient_norm": 4},
        columns=["setting", "state", "loss", "accuracy", "auc", "lesion_share", "gradient_norm", "dead_relus"],
    )


def identical(study: Study) -> Section:
    """Section 3: trajectories of losses from the same start, and what a seed is worth."""
    rows, runs = identity.measured(study), experiments.ensure(study, "identity")
    found = None if rows is None else identity.table(rows)
    bce, kld = (tables.published_row("loss", method) for method in ("BCE", "KLD"))
    gap = {score: abs(bce[score] - kld[score]) for score in ("loss", "accuracy")}
    tables.write(identity.seeds(runs), _file(study, "identity_seeds"))
    given = experiments.settings(study)["trajectory"]
    size = experiments.size(study, given["size"])
    return _section(
        study,
        *("identity", found, identity.conclusion(found, runs, gap)),
        trajectories(rows) if rows is not None else not_run(),
        caption="Distance from the weights that BCE of the probabilities leads to, as a share of the way travelled; "
        f"same start, same images in the same order. {size['image_size']} pixels, {size['base_filters']} filters, "
        f"batches of {given['batch_size']}, baseline optimizer on standardized images.",
        table_caption=f"Steps that each stays together with BCE of the probabilities (distance below "
        f"{identity.TOGETHER:.0%}).",
        digits={"first": 8, "last": 6},
    )


def misaligned(study: Study) -> Section:
    """Section 4: the squeezed target against the aligned one."""
    rows, runs = misalignment.measured(study), experiments.ensure(study, "misalignment")
    found = None if rows is None else misalignment.table(rows)
    tables.write(compare.scored(runs), _file(study, "misalignment_trained"))
    return _section(
        study,
        *("misalignment", found, misalignment.conclusion(found, runs)),
        ceilings(found) if found is not None else not_run(),
        caption="Accuracy under the published target of a segmenter that answers exactly what it sees, and of calling "
        "everything background.",
        table_caption="A segmenter without fault against the published, squeezed target; lesion beyond the output's "
        f"reach. Input {study.image_size} pixels.",
    )


def flipped(study: Study) -> Section:
    """Section 5: the image flipped and its mask not."""
    rows, runs = flips.measured(study), experiments.ensure(study, "flips")
    found = None if rows is None else flips.table(rows)
    tables.write(compare.scored(runs), _file(study, "flips_trained"))
    return _section(
        study,
        *("flips", found, flips.conclusion(found, runs)),
        label_noise(found) if found is not None else not_run(),
        caption="Share of a flipped image's lesion that its mask calls background, and of all its pixels that are "
        "labelled wrong, by fifths of the lesion's distance from the middle.",
        table_caption="Label noise by position of the lesion (offset: 0 in the middle, 1 at a side). Half of the "
        "images are flipped, so half of the wrong pixels are expected.",
    )


def checkerboard(study: Study) -> Section:
    """Section 6: power at the Nyquist frequency."""
    rows = checkerboards.measured(study)
    found = None if rows is None else checkerboards.table(rows)
    config = experiments.configs(study, "checkerboards")["nearest"][0]
    return _section(
        study,
        *("checkerboards", found, checkerboards.conclusion(found)),
        spectra(found) if found is not None else not_run(),
        caption=f"Share of power at the Nyquist frequency of rows or columns; grey: what white noise has. "
        f"{_size(config, held_out=True)}; before training the mean over {len(checkerboards.SEEDS)} initialisations.",
        table_caption="Power at the Nyquist frequency by way of upsampling (all four steps) and stage.",
        digits=5,
    )


def leaking(study: Study) -> Section:
    """Section 7: near-duplicates on both sides of a split."""
    rows, runs = leakage.measured(study), experiments.ensure(study, "leakage")
    found = None if rows is None else leakage.table(rows, runs)
    config = experiments.configs(study, "leakage")["grouped"][0]
    return _section(
        study,
        *("leakage", found, leakage.conclusion(rows, runs)),
        twins(found) if found is not None and found.dice.notna().any() else not_run(),
        caption=f"Held-out Dice with 95 % intervals, by split and by whether a near-duplicate was trained on. "
        f"{_size(config, held_out=True)}.",
        table_caption="Test images of all folds by split, and the Dice of those that have been scored.",
    )


def climbed(study: Study) -> Section:
    """Section 8: the ladder."""
    rows = ladder.measured(study)
    found = None if rows is None else ladder.table(rows)
    published = tables.published_row("upsampling", "Upsampling2D")
    config = experiments.configs(study, "ladder")["rebuilt"][0]
    return _section(
        study,
        *("ladder", found, ladder.conclusion(found, published)),
        waterfall(found, published) if found is not None else not_run(),
        caption=f"From the published number (star) to the held-out one: each step's change, with the 95 % interval of "
        f"the change; dashed, background everywhere on the same images. {_size(config)}.",
        table_caption="Each rung against its own targets, on the images that it scores.",
        columns=["rung", "n_images", *ladder.SCORES, *(f"floor_{score}" for score in ladder.SCORES), "lesion_auc"],
    )


def summary(study: Study, sections: dict[str, Section]) -> str:
    """All conclusions as Markdown, the last section's first; written to ``tables/mechanisms_conclusions.csv``.

    Args:
        study: Whose report it is.
        sections: By title.
    """
    rows = [{"section": title, "conclusion": section.conclusion} for title, section in sections.items()]
    tables.write(pd.DataFrame(rows), _file(study, "conclusions"))
    listed = "\n".join(f"{number}. **{row['section']}.** {row['conclusion']}" for number, row in enumerate(rows, 1))
    return f"{rows[-1]['conclusion']}\n\n{listed}"


def _section(
    study: Study,
    name: str,
    found: pd.DataFrame | None,
    conclusion: str,
    figure: Figure,
    *,
    caption: str,
    table_caption: str,
    digits=4,
    columns: list[str] | None = None,
) -> Section:
    shown = pd.DataFrame({"result": [experiments.NOT_RUN]}) if found is None else found[columns or list(found)]
    if found is None:
        digits = 4
    else:
        tables.write(found, _file(study, name))
    return Section(
        conclusion,
        display.figure(figure, caption=caption, alt=conclusion),
        display.table(shown, caption=table_caption, digits=digits),
    )


def _file(study: Study, name: str):
    return study.report_path / "tables" / f"mechanisms_{name}.csv"


def _size(config, *, held_out: bool = False) -> str:
    """How big a section's runs are."""
    epochs = f"{'at most ' if held_out else ''}{config.epochs} epoch{'' if config.epochs == 1 else 's'}"
    return f"{config.image_size} pixels, {config.base_filters} filters, {epochs}"


# Figures


def not_run() -> Figure:
    """In place of a figure whose runs are missing."""
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(6.4, 1.2))
        ax.text(0.5, 0.5, experiments.NOT_RUN, ha="center", va="center")
        ax.axis("off")
    return fig


def rows_against_floors(rows: pd.DataFrame, floors: pd.Series) -> Figure:
    """The published rows against the floor of accuracy, of pooled AUC and of their own loss.

    Args:
        rows: As `busi.report.tables.distinct_rows`.
        floors: Exact floor by metric of `busi.mechanisms.floors.FORMULAS`.
    """
    own = [floors[{"KLD": "KLD", "DICE": "Dice loss"}.get(method, "BCE")] for method in rows.method]
    panels = {
        "Accuracy": (rows.accuracy, floors["accuracy"]),
        "AUC, both channels": (rows.auc, floors["AUC, both channels"]),
        "Loss less its floor": (rows.loss - own, 0.0),
    }
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 3, figsize=(8.6, 3.8), sharey=True)
        places = np.arange(len(rows))[::-1]
        for ax, (title, (values, floor)) in zip(axes, panels.items(), strict=True):
            ax.axvline(floor, **FLOOR_LINE)
            ax.plot(values, places, "ko", markersize=7)
            ax.set(title=title, ylim=(-0.7, len(rows) - 0.3))
            ax.grid(axis="x")
            ax.tick_params(axis="x", labelrotation=30)
        axes[0].set_yticks(places, rows.row)
    return fig


def sweep(table: pd.DataFrame) -> Figure:
    """First-epoch loss, gradient norm and dead ReLUs against the rate, by optimizer.

    Args:
        table: As `busi.mechanisms.collapse.table`; its rows without an optimizer are not drawn, save the untrained one.
    """
    panels = {"first_loss": "Loss, first epoch", "gradient_norm": "Gradient norm", "dead_relus": "Dead ReLUs (share)"}
    untrained = table[table.setting == "untrained"]
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 3, figsize=(8.6, 3.4))
        for ax, (column, title) in zip(axes, panels.items(), strict=True):
            for optimizer, part in table[table.optimizer.notna()].groupby("optimizer", sort=False):
                part = part.sort_values("learning_rate")
                (line,) = ax.plot(part.learning_rate, part[column], label=optimizer)
                for state, (marker, face) in STATES.items():
                    some = part[part.state == state]
                    look = {"mfc": face or line.get_color(), "mec": line.get_color(), "mew": 2, "markersize": 8}
                    ax.plot(some.learning_rate, some[column], marker, **look)
            if column in untrained and untrained[column].notna().all():
                ax.axhline(untrained[column].iloc[0], color="#666666", linestyle=":", label="untrained")
            ax.set(xscale="log", xlabel="Learning rate", title=title)
        axes[1].set_yscale("log")
        fig.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=10)
    return fig


def trajectories(rows: pd.DataFrame) -> Figure:
    """Distance of each trajectory from that of BCE of probabilities, by step; both axes logarithmic.

    Args:
        rows: As `busi.mechanisms.identity.measured`.
    """
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(7.6, 3.8))
        for (loss, precision, targets), part in rows.groupby(["loss", "precision", "targets"], sort=False):
            ax.plot(part.step, part.distance, marker="o", label=f"{loss}, {precision}, {targets}")
        ax.axhline(identity.TOGETHER, **FLOOR_LINE)
        ax.set(xscale="log", yscale="log", xlabel="Step", ylabel="Distance / way travelled")
        ax.set_xticks(sorted(rows.step.unique()), sorted(rows.step.unique()))
        ax.minorticks_off()
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return fig


def ceilings(table: pd.DataFrame) -> Figure:
    """Accuracy under the squeezed target of a segmenter without fault and of the background, by class.

    Args:
        table: As `busi.mechanisms.misalignment.table`.
    """
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(6.4, 3.2))
        places = np.arange(len(table))
        ax.bar(places - 0.2, table.accuracy, 0.36, color=BLUE, label="without fault")
        ax.bar(places + 0.2, table.background, 0.36, color="#BBBBBB", hatch="//", label="background everywhere")
        for place, row in zip(places, table.itertuples(), strict=True):
            ax.text(place - 0.2, row.accuracy, f"{row.accuracy:.3f}", ha="center", va="bottom", fontsize=10)
            ax.text(place + 0.2, row.background, f"{row.background:.3f}", ha="center", va="bottom", fontsize=10)
        ax.set_xticks(places, table.images)
        ax.set(ylabel="Accuracy, squeezed target", ylim=(0, 1.1))
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def label_noise(table: pd.DataFrame) -> Figure:
    """Share of lesion missed and of pixels wrong in a flipped image, by position.

    Args:
        table: As `busi.mechanisms.flips.table`.
    """
    rows = table[table.position != "all"]
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(7, 3.2))
        ax.plot(rows.offset, rows.missed, "o-", color=BLUE, label="of the lesion, labelled background")
        ax.plot(rows.offset, rows.wrong, "s--", color=RED, label="of all pixels, labelled wrong")
        ax.set(xlabel="Lesion's distance from the middle (1: at a side)", ylabel="Share", ylim=(0, 1.05))
        ax.legend(loc="center right")
    return fig


def spectra(table: pd.DataFrame) -> Figure:
    """Power at the Nyquist frequency by stage and way of upsampling, before and after training.

    Args:
        table: As `busi.mechanisms.checkerboards.table`.
    """
    stages, ways = list(dict.fromkeys(table.stage)), list(dict.fromkeys(table.upsampling))
    least = 1e-6
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.4), sharey=True)
        for ax, column in zip(axes, ("untrained", "trained"), strict=True):
            for number, (way, colour) in enumerate(zip(ways, (BLUE, RED, GREEN), strict=False)):
                part = table[table.upsampling == way].set_index("stage").reindex(stages)
                # Repetition leaves rounding only, which has no place on a logarithmic axis.
                values = part[column].astype(float).clip(lower=least)
                ax.plot(np.arange(len(stages)) + 0.15 * (number - 1), values, "osD"[number], color=colour, label=way)
            noise = table.drop_duplicates("stage").set_index("stage").noise.reindex(stages)
            ax.plot(np.arange(len(stages)), noise, "_", color="#888888", markersize=44, label="white noise")
            ax.set_xticks(np.arange(len(stages)), [stage.replace(" ", "\n") for stage in stages])
            missing = "" if table[column].notna().any() else ": not run yet"
            ax.set(yscale="log", ylim=(least / 2, 1.5), title=f"{column.capitalize()}{missing}")
        axes[0].set_ylabel("Share of power at Nyquist")
        axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=0.6)
    return fig


def twins(table: pd.DataFrame) -> Figure:
    """Dice with intervals by split and twin.

    Args:
        table: As `busi.mechanisms.leakage.table`; rows without a score are left out.
    """
    rows = table[table.dice.notna()]
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(7, 0.9 + 0.5 * len(rows)))
        places = np.arange(len(rows))[::-1]
        dice, low, high = (rows[column].astype(float) for column in ("dice", "low", "high"))
        ax.errorbar(dice, places, xerr=[dice - low, high - dice], fmt="o", color=BLUE, capsize=4)
        labels = [f"{row.split}: {row.images} ({row.n_scored})" for row in rows.itertuples()]
        ax.set_yticks(places, labels)
        ax.set(xlabel="Dice", ylim=(-0.6, len(rows) - 0.4))
        ax.grid(axis="x")
    return fig


def waterfall(table: pd.DataFrame, published: dict[str, float]) -> Figure:
    """Each rung's scores and the change that leads to it, a panel a score.

    Args:
        table: As `busi.mechanisms.ladder.table`.
        published: The baseline's published `accuracy` and `auc`.
    """
    titles = {"accuracy": "Accuracy", "auc": "AUC, both channels", "dice": "Dice"}
    places = np.arange(1, len(table) + 1)
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(3, 1, figsize=(8.2, 7.6), sharex=True)
        for ax, (score, title) in zip(axes, titles.items(), strict=True):
            if score in published:
                ax.plot(0, published[score], "k*", markersize=12)
            ax.step(places, table[f"floor_{score}"], where="mid", **FLOOR_LINE)
            values = table[score].astype(float)
            ax.plot(places, values, "o", color="#222222", markersize=6, zorder=3)
            change = table[f"{score}_change"].astype(float)
            colours = np.where(change >= 0, BLUE, "#CC79A7")
            ax.bar(places, change.fillna(0), 0.5, bottom=values - change.fillna(0), color=colours, alpha=0.7)
            ends = [change - table[f"{score}_low"].astype(float), table[f"{score}_high"].astype(float) - change]
            ax.errorbar(
                places, values, yerr=np.nan_to_num(np.clip(ends, 0, None)), fmt="none", ecolor="#222222", capsize=3
            )
            ax.set(title=title)
        axes[-1].set_xticks([0, *places], ["published", *table.rung], rotation=30, ha="right")
    return fig


SECTIONS = {
    "Floors": floors,
    "Collapse": collapsing,
    "KLD is BCE": identical,
    "Misalignment": misaligned,
    "Augmenting the image without its mask": flipped,
    "Checkerboards": checkerboard,
    "Leakage": leaking,
    "The ladder": climbed,
}
"""Title of a section -> what makes it."""
