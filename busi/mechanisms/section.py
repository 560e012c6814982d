"""Common parts of the sections, each of which explains a published number by an experiment.

A section is one module. Its `tabulate` makes a table of the results of its runs (``trained``), or of what its `measure`
returns. From that table, `draw` makes a figure and `conclude` a conclusion in words, which also names the size of the
runs. `show` returns all three to a notebook.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import wraps

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

from busi import display, results, selection
from busi.config import Parameters, RunConfig
from busi.dataset import arrays, duplicates, preprocessing, splits
from busi.dataset.catalog import Catalog
from busi.dataset.parts import load_parts
from busi.results import NotMeasured, Results, read_findings, record_finding
from busi.runs import Run
from busi.scoring import metrics
from busi.scoring.statistics import lesion_images, score_interval
from busi.study import find_group, find_groups, find_trained, load_results, open_store

NOT_RUN = "Not run yet."

TITLES = {
    "floors": "Floors",
    "log": "The printed log",
    "readings": "Other readings",
    "curve": "One curve, cut at different points",
    "collapse": "Collapse",
    "identity": "KLD and BCE",
    "misalignment": "Misalignment",
    "flips": "Augmenting the image without its mask",
    "checkerboards": "Checkerboards",
    "leakage": "Leakage",
    "ladder": "The ladder",
    "recipe": "The recipe",
    "peers": "A peer",
}
"""Titles of all sections by module, in the order in which their conclusions are listed."""


@dataclass(frozen=True)
class Section:
    """Figure, table and conclusion of a section.

    Attributes:
        figure: Figure with caption and alternative text.
        table: Small table; the full one is a file in ``tables``.
        conclusion: A few sentences of Markdown, computed from the numbers.
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
    """Return a section made of a figure and a table, with captions, and a conclusion."""
    return Section(
        # The conclusion tells readers who cannot see the figure what it shows.
        figure=display.figure(figure, caption=caption, alt=conclusion),
        table=display.table(table, caption=table_caption, digits=digits, fold="The numbers"),
        conclusion=conclusion,
    )


def presents(name: str) -> Callable:
    """Return a decorator for the `show` of section ``name``, a function of the parameters that returns a `Section`.

    The conclusion is recorded under "mechanisms" in ``findings.json``. As long as some of the planned runs are missing,
    it says how many there are. If some of the numbers have not been measured, the section has no figure and no table,
    and its conclusion says so.
    """

    def decorate(make: Callable[[Parameters], Section]) -> Callable[[Parameters], Section]:
        @wraps(make)
        def show(parameters: Parameters) -> Section:
            try:
                section = make(parameters)
                section = replace(section, conclusion=section.conclusion + _describe_progress(parameters, name))
            except NotMeasured:
                section = Section(HTML(""), HTML(""), NOT_RUN)
            # Also if nothing has been run, so that no earlier conclusion is left behind.
            facts = {name: section.conclusion}
            record_finding(parameters, "mechanisms", **facts)
            return section

        return show

    return decorate


def _describe_progress(parameters: Parameters, name: str) -> str:
    """Return how many of a section's runs have been trained; nothing if it has all of them, or none of its own."""
    group = find_groups(parameters).get(f"mechanisms/{name}")
    if group is None:
        return ""
    finished = set(load_results(parameters, group.name).runs.run)
    planned = {config.label for config in group.configs}
    trained = len(finished & planned)
    if trained in (0, len(planned)):
        return ""
    verb = display.agree(trained, "has", "have")
    return f" Provisional: {trained} of {len(planned)} planned runs {verb} been trained."


def collect_conclusions(parameters: Parameters) -> pd.DataFrame:
    """Return the recorded conclusions of all sections: `section` (title) and `conclusion`, in the order of `TITLES`."""
    recorded = read_findings(parameters).get("mechanisms", {})
    rows = [{"section": title, "conclusion": recorded.get(name, NOT_RUN)} for name, title in TITLES.items()]
    return pd.DataFrame(rows)


def require(trained: Results, what: str = "its runs") -> Results:
    """Return results unchanged, or raise NotMeasured, naming ``what``, if they hold no run yet."""
    if trained.runs.empty:
        raise NotMeasured(f"{what}: not trained yet; run the study with its data and train_missing: true")
    return trained


def measure_runs(
    parameters: Parameters, group: str, name: str, measure: Callable[[Run, Catalog], pd.DataFrame]
) -> tuple[Results, pd.DataFrame]:
    """Return the results of a group's runs, and ``results/<name>.csv``, the tables that ``measure`` makes of each run.

    Returns:
        The results, and the tables as one, with `variant`, `fold` and `seed` of the run, and near-duplicate `group` if
        they name images.
    """
    # First, because this trains missing networks, which are needed below.
    trained = load_results(parameters, group)

    def make(catalog: Catalog) -> pd.DataFrame:
        store = open_store(parameters, catalog)
        tables = []
        for variant, configs in find_group(parameters, group).variants.items():
            for config in configs:
                table = measure(find_trained(config, store), catalog)
                tables.append(table.assign(variant=variant, fold=config.fold, seed=config.seed))
        joined = pd.concat(tables)
        if "name" in joined:
            groups = splits.load_split(catalog, "grouped").set_index("name").group
            joined["group"] = joined.name.map(groups)
        return joined

    depends = [*trained.runs.key, splits.read_split_file("grouped")]
    code = (measure, pair_answers, choose_threshold, arrays, preprocessing, splits, duplicates, metrics, selection)
    return trained, results.measure(parameters, name, make, depends=depends, code=code)


def pair_answers(run: Run, part: str, catalog: Catalog, target: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, target (o, o, 2) and predicted probability of lesion (o, o) of each lesion image of a run's part.

    Args:
        run: The run, with its predictions.
        part: "training", "validation" or "test".
        catalog: The images.
        target: "squeezed" or "aligned", whichever the run was trained on.
    """
    config = run.config.model_copy(update={"target": target})
    images = getattr(load_parts(config, catalog), part)
    targets = dict(zip(images.names, images.targets, strict=True))
    lesions = set(catalog.lesions.name)
    answers = run.predictions[part]
    for name, probability in zip(answers.names, answers.probability, strict=True):
        # The published protocol leaves normals out. Paired by name: the order need not be the same.
        if name in lesions:
            yield name, targets[name], probability


def choose_threshold(run: Run, catalog: Catalog, target: str) -> float:
    """Choose a run's threshold on the part of its validation images that its output covers, against ``target``.

    The run's own threshold was chosen on whole images, including lesions that its output does not cover. The target is
    one of `pair_answers`.
    """
    _, targets, answers = zip(*pair_answers(run, "validation", catalog, target), strict=True)
    return selection.choose_threshold([target[..., 0] for target in targets], answers)


def describe_size(config: RunConfig) -> str:
    """Return the size of a run in words, e.g. "64 pixels, 16 filters, at most 40 epochs"."""
    # In a held-out run, the validation part chooses one epoch, and may end training early.
    limit = "at most " if config.protocol == "heldout" else ""
    return f"{config.image_size} pixels, {config.base_filters} filters, {limit}{display.count(config.epochs, 'epoch')}"


def describe_runs(trained: Results) -> str:
    """Return size and number of a group's runs in words: "64 pixels, ..., 1 seed in each of 5 folds".

    Runs that hold images out are said to be of one fold if they are; published runs have no folds.
    """
    seeds = trained.runs.groupby(["variant", "fold"]).size()
    # A study under way, or a quick one, may not have trained all variants from all seeds.
    fewest = f"{seeds.min()} to " if seeds.min() < seeds.max() else ""
    text = f"{describe_size(trained.configs[0])}, {fewest}{display.count(seeds.max(), 'seed')}"
    folds = trained.runs.fold.nunique()
    if folds > 1:
        return f"{text} in each of {folds} folds"
    holds_out = any(config.protocol == "heldout" for config in trained.configs)
    return f"{text} in one fold" if holds_out else text


def tested_lesions(trained: Results, variant: str) -> pd.DataFrame:
    """Return a variant's scores of the lesion images that its held-out runs were tested on; raises as `require`."""
    return lesion_images(require(trained.of(variant), variant).images)


def score_variants(images: pd.DataFrame, *others: str, by: str = "variant") -> pd.DataFrame:
    """Return the Dice of each variant, with the ends of its interval over images and training.

    Args:
        images: Scores of lesion images: ``by``, `name`, `group`, `dice` and ``others``, and `fold` and `seed` of the
            run if there is one. Where the output covers no lesion, an image has no Dice, only ``others``.
        by: Column that names the variant.
        others: Further columns to average.

    Returns:
        ``by``; `n_images`, and `n_dice` of them with a Dice; `dice` with `low` and `high`; means of ``others``.
    """
    rows = []
    for variant, part in images.groupby(by, sort=False):
        scored = part.dropna(subset="dice")
        row = {by: variant, "n_images": part.name.nunique(), "n_dice": scored.name.nunique()}
        # A variant whose output never covers a lesion has no Dice to average.
        if len(scored):
            row |= dict(zip(("dice", "low", "high"), score_interval(scored), strict=True))
        rows.append(row | part[list(others)].mean().to_dict())
    return pd.DataFrame(rows)
