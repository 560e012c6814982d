"""External test: the study's networks on another data set, beside their held-out scores.

Two variants are tested: the baseline, and the one with the highest Dice on its validation parts, so that neither a test
part nor the other data set influences the choice. The recipe's last rung is tested too, once trained in all folds. No
earlier rung is: if every rung were tested, the external images would soon be part of the choice. A prediction is the
mean of the networks of all folds, made once for each seed.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

from busi import display, results
from busi.config import RECIPE, Parameters, RunConfig, StudyError, families, validate
from busi.dataset import duplicates
from busi.dataset.catalog import Catalog, read_catalog
from busi.lab.evaluate import ask_networks
from busi.mechanisms import recipe, section
from busi.results import ANOTHER_REPORT, NotMeasured, Results, join_results
from busi.scoring import metrics, ruler
from busi.scoring.statistics import rank_seeds, score_interval
from busi.study import find_groups, find_trained, load_results, measure_untrained, open_store

NOT_GIVEN = "No external data set was given; `make study EXTERNAL=FOLDER` tests the networks on one."

SHOWN = ("iou", "nsd", "detected")
"""Scores in the table besides Dice."""


def choose_networks(trained: Results, baseline: str) -> Results:
    """Return the runs of the variant named ``baseline``, and of the one with the highest mean Dice on validation parts.

    A variant that lacks a fold which others have is not chosen, because the folds that it has may be easier. Each fold
    counts once, with the mean of its seeds.

    Raises:
        NotMeasured: There is no run yet.
    """
    # A variant that several families share counts once.
    runs = section.require(trained).runs.drop_duplicates("run")
    folds = runs.groupby(["name", "fold"]).validation_dice.mean()
    variants = folds.groupby("name").agg(["size", "mean"])
    whole = variants[variants["size"] == variants["size"].max()]
    chosen = runs.name.isin([baseline, whole["mean"].idxmax()])
    return trained.in_order(runs.index[chosen])


def take_last_rung(trained: Results, planned: dict[str, list[RunConfig]]) -> Results:
    """Return the results of the recipe's last rung; empty while a run of the recipe is missing (`take_whole_rungs`)."""
    return recipe.take_whole_rungs(trained, planned).of(list(planned)[-1])


def load_chosen(parameters: Parameters) -> Results:
    """Return the gathered results of the variants to test, with the family in front of their names: "loss: KLD"."""
    reader = parameters.model_copy(update={"train_missing": False})
    parts = [_name_after(family, load_results(reader, f"heldout/{family}")) for family in families()]
    baseline = validate(RunConfig, "heldout", parameters.heldout_fields())
    chosen = [choose_networks(join_results(parts), baseline.name)]
    ladder = find_groups(parameters).get(recipe.GROUP)
    # A user's own study may have no recipe.
    if ladder:
        last_rung = take_last_rung(load_results(reader, recipe.GROUP), ladder.variants)
        chosen.append(_name_after(RECIPE, last_rung))
    return join_results(chosen)


def _name_after(family: str, found: Results) -> Results:
    """Return results with the family in front of the variants' names, because two families may have equal ones."""
    return Results(
        **{name: table.assign(variant=f"{family}: " + table.variant) for name, table in found.tables.items()}
    )


def measure(parameters: Parameters, chosen: Results) -> pd.DataFrame:
    """Return the scores of the chosen networks, and of untrained predictors, on the external images.

    Each variant has a file of its own, because the networks of one may be at hand where those of another are not.

    Returns:
        `predictor`; `seed`, the rank of the networks' seeds within their folds, and `n_networks` that were averaged,
        both missing for an untrained predictor; `data` (name of the folder), `fingerprint`, `name`, `group` and the
        scores of `busi.scoring.metrics.score_image`. There is no row of a variant that has been tested neither here nor
        on another machine.

    Raises:
        NotMeasured: Nothing has been tested before, and no external data set is given or no chosen network is here.
        StudyError: The external images are the study's own, are named like some of these, or are not the ones of an
            earlier test.
    """
    if not parameters.external_dir:
        parameters = parameters.model_copy(update={"train_missing": False})
    external = _Images(parameters)
    # First, because this refuses images that must not be scored.
    images = external.measure("images", external.describe)
    tables = []
    for variant in chosen.variants:
        own = chosen.of(variant)
        with suppress(NotMeasured):
            table = external.ask_variant(own)
            tables.append(table.assign(predictor=variant))
    if not tables:
        raise NotMeasured(f"{parameters.runs_path}: none of the chosen networks is here; train them first")
    tables.append(external.measure("blind", external.ask_blindly))
    return pd.concat(tables, ignore_index=True).merge(images, on="name")


@dataclass(frozen=True)
class _Images:
    """Images of another data set, read only when needed: tables that have been measured are read without them."""

    parameters: Parameters

    @cached_property
    def catalog(self) -> Catalog:
        return read_catalog(self.parameters.external_path, expected=None)

    def measure(self, name: str, make: Callable[[Catalog], pd.DataFrame], depends: Iterable[str] = ()) -> pd.DataFrame:
        """Return the table ``results/external/<name>.csv``, as `busi.results.measure`."""
        if self.parameters.train_missing:
            depends = [self.catalog.fingerprint, *depends]
        return results.measure(self.parameters, f"external/{name}", make, depends=depends, code=(ruler, metrics))

    def describe(self, catalog: Catalog) -> pd.DataFrame:
        """Return `name` and `group` (of near-duplicates) of each image, and `data` and `fingerprint` of them all."""
        folder, fingerprint = self.parameters.external_path, self.catalog.fingerprint
        if fingerprint == catalog.fingerprint:
            raise StudyError(f"external_dir: {folder} holds the study's own images; expected other ones")
        file = self.parameters.results_path / "external" / "images.csv"
        if file.is_file():
            measured = pd.read_csv(file, skiprows=1, dtype=str).fingerprint[0]
            if measured != fingerprint:
                raise StudyError(
                    f"{file.parent}: holds results of external data {measured}, and these are {fingerprint}; put these "
                    f"into a report of their own, {ANOTHER_REPORT}, or delete that folder first"
                )
        described = {"name": self.catalog.table.name, "group": duplicates.group_images(self.catalog)}
        return pd.DataFrame(described).assign(data=folder.name, fingerprint=fingerprint)

    def ask_variant(self, trained: Results) -> pd.DataFrame:
        """Return the scores of a variant's networks, averaged over folds, with `seed` and `n_networks`."""

        def ask(catalog: Catalog) -> pd.DataFrame:
            store = open_store(self.parameters, catalog)
            tables = []
            for place, runs in trained.runs.groupby(rank_seeds(trained.runs).seed):
                networks = [find_trained(trained.configs[row], store) for row in runs.index]
                scores = ruler.score_answers(self.catalog, ask_networks(networks, self.catalog))
                tables.append(scores.assign(seed=place, n_networks=len(networks)))
            return pd.concat(tables)

        return self.measure(trained.runs["name"][0], ask, trained.runs.key)

    def ask_blindly(self, catalog: Catalog) -> pd.DataFrame:
        """Return the scores of the predictors that need nothing but the image, with `predictor`."""
        tables = []
        for name, predict in ruler.BLIND.items():
            scores = ruler.score_answers(self.catalog, ruler.ask_blindly(self.catalog, predict))
            tables.append(scores.assign(predictor=name))
        return pd.concat(tables)


def tabulate(images: pd.DataFrame, heldout: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each predictor.

    Args:
        images: As `measure`.
        heldout: Scores of the same predictors on the study's own held-out images: a table of scores as in
            `busi.scoring.statistics`, with `predictor`.

    Returns:
        `predictor`, `n_networks` averaged in a prediction, `n_seeds`, `n_images` (with a lesion); `dice` with `low` and
        `high` over images and seeds, and the lowest and highest mean of a seed as `seed_low` and `seed_high`; `SHOWN`;
        and on the held-out images `heldout_dice` with `heldout_low` and `heldout_high`, and their number
        `heldout_images`.
    """
    rows = []
    # Images without a lesion have no Dice.
    for predictor, scores in images.dropna(subset="dice").groupby("predictor", sort=False):
        row = {"predictor": predictor, "n_images": scores.name.nunique()}
        row |= {"n_networks": scores.n_networks.max(), "n_seeds": scores.seed.nunique()}
        # Empty for an untrained predictor, which has no seed.
        by_seed = scores.groupby("seed").dice.mean()
        row |= {"seed_low": by_seed.min(), "seed_high": by_seed.max()}
        row["dice"], row["low"], row["high"] = score_interval(_name_runs(scores))
        row |= scores[list(SHOWN)].mean().to_dict()
        own = heldout[heldout.predictor == predictor].dropna(subset="dice")
        row["heldout_images"] = own.name.nunique()
        if len(own):
            row["heldout_dice"], row["heldout_low"], row["heldout_high"] = score_interval(_name_runs(own))
        rows.append(row)
    columns = ["predictor", "n_networks", "n_seeds", "n_images", "dice", "low", "high", "seed_low", "seed_high"]
    columns += [*SHOWN, "heldout_dice", "heldout_low", "heldout_high", "heldout_images"]
    return pd.DataFrame(rows, columns=columns).astype({"n_networks": "Int64"})


def _name_runs(scores: pd.DataFrame) -> pd.DataFrame:
    """Return a table of scores with `fold` and `seed` if it is of networks, without these columns if not."""
    if scores.seed.isna().all():
        return scores.drop(columns=["fold", "seed"], errors="ignore")
    # A prediction is the mean of all folds, which therefore count as one.
    return scores if "fold" in scores else scores.assign(fold=0)


def keep_asked(chosen: Results, images: pd.DataFrame) -> Results:
    """Return the runs of the seeds tested in ``images``, as `measure`; others may have been trained since."""
    places = chosen.runs.groupby(["variant", "fold"]).seed.rank("dense")
    asked = images.dropna(subset="seed").groupby("predictor").seed.agg(set).to_dict()
    was_asked = [place in asked.get(variant, ()) for variant, place in zip(chosen.runs.variant, places, strict=True)]
    return chosen.in_order(np.flatnonzero(was_asked))


def load_heldout(parameters: Parameters, chosen: Results) -> pd.DataFrame:
    """Return the held-out scores of the chosen networks and of the untrained predictors, for `tabulate`."""
    untrained, _ = measure_untrained(parameters)
    return pd.concat([chosen.images.rename(columns={"variant": "predictor"}), untrained])


@display.style()
def draw(table: pd.DataFrame) -> Figure:
    """Draw the Dice of each predictor on the external and on the held-out images, with 95 % intervals."""
    places = np.arange(len(table))
    fig, ax = plt.subplots(figsize=(display.WIDTH, 1.5 + 0.6 * len(table)))
    for shift, (label, prefix) in enumerate({"external": "", "held out": "heldout_"}.items()):
        dice, low, high = (table[f"{prefix}{column}"] for column in ("dice", "low", "high"))
        display.draw_intervals(ax, places + 0.2 * shift, dice, low, high, label=label)
    ax.set(xlabel="Dice")
    display.name_rows(ax, table.predictor)
    display.add_legend(fig)
    # The title is about networks alone: untrained predictors are there for comparison.
    networks = table[table.n_networks.notna()]
    outside = networks.dice
    inside = networks.heldout_dice
    external = f"Dice {outside.min():.3f} to {outside.max():.3f} on external images (mean of a variant's networks)"
    display.add_title(fig, f"{external}, {inside.min():.3f} to {inside.max():.3f} held out (single networks)")
    return fig


def conclude(table: pd.DataFrame, data: str, size: str) -> str:
    """Return what each predictor scores on the external images, beside the study's own."""
    text = f"Dice on the {table.n_images.iloc[0]} images of {data}, on which nothing was chosen."
    for row in table.itertuples():
        text += f" {row.predictor}: {row.dice:.3f} ({row.low:.3f} to {row.high:.3f}"
        if row.n_seeds > 1:
            text += f"; {row.n_seeds} seeds {row.seed_low:.3f} to {row.seed_high:.3f}"
        text += f"), held out {row.heldout_dice:.3f}."
        if row.predictor == f"{RECIPE}: {recipe.GOAL_RUNG}":
            goal = recipe.tell_goal(f"Dice of at least {recipe.GOAL_DICE}", row.dice >= recipe.GOAL_DICE)
            text += f" {recipe.BEFOREHAND}: {goal}."
            # The goal says little about the recipe if a network without it is as good.
            others = table.predictor[(table.dice >= recipe.GOAL_DICE) & (table.predictor != row.predictor)]
            text += f" It is also reached by others ({'; '.join(others)})." if len(others) else ""
    text += " An external prediction is the mean of the networks of all folds, a held-out one that of one network."
    return f"{text}{_tell_one_seed(table)}{_compare_difficulty(table)} Size: {size}."


def _tell_one_seed(table: pd.DataFrame) -> str:
    is_one = table.n_seeds.max() == 1
    return " With one seed, the intervals of external predictions are over images alone." if is_one else ""


def _compare_difficulty(table: pd.DataFrame) -> str:
    """Return whether the external images are easier or harder, judged by the best predictor that was not trained."""
    blind = table[table.n_networks.isna()].dropna(subset=["dice", "heldout_dice"])
    if blind.empty:
        return ""
    best = blind.loc[blind.dice.idxmax()]
    word = "easier" if best.dice > best.heldout_dice else "harder"
    return (
        f" The external images are {word} in themselves: {best.predictor}, which was not trained, has {best.dice:.3f} "
        f"on them and {best.heldout_dice:.3f} on the study's own. So a network's "
        "Dice here, beside its held-out Dice, does not say whether it works better or worse on another hospital's "
        "images."
    )


def describe_sizes(chosen: Results, predictors: set[str]) -> str:
    """Return the sizes of the runs of ``predictors`` in words, each once; that of the recipe's last rung may differ."""
    tested = [variant for variant in chosen.variants if variant in predictors]
    sizes = [section.describe_runs(chosen.of(variant)) for variant in tested]
    return "; ".join(dict.fromkeys(sizes))


def list_answers(parameters: Parameters) -> list[str]:
    """Return what matters as a list of one short text in Markdown, for the summary; empty if nothing was tested."""
    if not (parameters.tables_path / "external.csv").is_file():
        return []
    table = results.read_table(parameters, "external")
    networks = table[table.n_networks.notna()]
    told = []
    for row in networks.itertuples():
        interval = f"{row.low:.3f} to {row.high:.3f}"
        told.append(f"{row.dice:.3f} ({interval}) for {row.predictor} ({row.heldout_dice:.3f} held out)")
    return [
        f"**On {table.n_images.iloc[0]} external images**, on which nothing was chosen, Dice is {'; '.join(told)}. "
        "These are the baseline, the variant with the best validation Dice and, once trained, the recipe's last rung. "
        "External predictions are the mean of the networks of all folds, those held out of single networks of the same "
        f"seeds.{_tell_one_seed(table)}{_compare_difficulty(table)} "
        f"Size: {'; '.join(dict.fromkeys(networks['size']))}."
    ]


@section.presents("external")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion, and write ``tables/external.csv``; without external data, only say so."""
    measured = (parameters.results_path / "external" / "images.csv").is_file()
    if not (parameters.external_dir or measured):
        return section.Section(HTML(""), HTML(""), NOT_GIVEN)
    chosen = load_chosen(parameters)
    images = measure(parameters, chosen)
    chosen = keep_asked(chosen, images)
    table = tabulate(images, load_heldout(parameters, chosen))
    table["size"] = [describe_sizes(chosen, {predictor}) for predictor in table.predictor]
    results.write_table(parameters, "external", table)
    return section.compose(
        draw(table),
        # The conclusion names the sizes.
        table.drop(columns="size"),
        conclude(table, images.data.iloc[0], describe_sizes(chosen, set(images.predictor))),
        caption="Dice with 95 % intervals on an external data set and on the study's own held-out images. Networks: "
        "the baseline, the variant with the highest Dice on its validation parts and, once trained in all folds, the "
        "recipe's last rung.",
        table_caption="An external prediction is the mean of the networks of all folds, a held-out one that of one "
        "network, of the same seeds. Intervals cover images and, where there are several, seeds. NSD: share of the "
        f"outlines within {metrics.NSD_TOLERANCE:g} pixels of each other. Detected: share of lesions that a marked "
        f"region overlaps with an IoU of at least {metrics.HIT_IOU}.",
    )
