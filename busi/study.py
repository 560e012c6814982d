"""Runs of a study: one list of all runs, for families and sections alike, and one way to find or train a run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from busi import selection
from busi.config import (
    PROTOCOLS,
    RECIPE,
    SECOND,
    Parameters,
    RunConfig,
    StudyError,
    expand_variants,
    families,
    heldout_draws,
    list_notebooks,
    read_family,
    read_sections,
    validate,
)
from busi.dataset import arrays, audit, duplicates, splits
from busi.dataset.catalog import Catalog, describe_images, is_released, load_catalog
from busi.published import distinct_rows
from busi.results import (
    NotMeasured,
    Results,
    collect_results,
    join_results,
    keep_others,
    lock_results,
    match_results,
    measure,
    read_keys,
    read_results,
    refuse_other_results,
    stack,
    write_results,
)
from busi.runs import Run, Store
from busi.scoring import blind, floors, metrics, outlines, predictors
from busi.scoring.scores import scoring_version

BLIND_ORDERS = 25
"""Number of mixed orders of the images in which the two biases are trained."""


_EXPERIMENTS = {
    "published": "published rows",
    "heldout": "held-out variants",
    SECOND: "held-out variants, second size",
}
"""First part of a group's name -> what its runs are, in words."""


@dataclass(frozen=True)
class Group:
    """Runs that one notebook compares: those of a family under one protocol, or those of a section.

    Attributes:
        name: Folder of their results, e.g. "published/loss", "heldout/loss", "second/loss", "mechanisms/collapse".
        notebook: Stem of the notebook that shows it.
        variants: Label -> the configurations of its runs.
    """

    name: str
    notebook: str
    variants: dict[str, list[RunConfig]]

    @property
    def configs(self) -> list[RunConfig]:
        """Return the configurations of all variants."""
        return [config for configs in self.variants.values() for config in configs]


def find_groups(parameters: Parameters) -> dict[str, Group]:
    """Return all groups of a study by name: the families under either protocol and at the second size, then sections.

    Raises:
        StudyError: A parameter file names an unknown parameter or gives an impossible value.
    """
    groups = {}
    notebooks = {stem.partition("_")[2]: stem for stem in list_notebooks()}
    # A notebook may have been given variants of its own in place of its family's.
    read = {name: parameters if name == parameters.family else read_family(name, parameters) for name in families()}
    for protocol in (*PROTOCOLS, SECOND):
        for family, own in read.items():
            name = f"{protocol}/{family}"
            variants = own.configs(protocol)
            if variants or protocol != SECOND:
                groups[name] = Group(name, notebooks[family], variants)
    for group in _section_groups(parameters):
        groups[group.name] = group
    return groups


def find_group(parameters: Parameters, name: str) -> Group:
    """Return the group of a study with a given name.

    Raises:
        StudyError: There is no such group; or as `find_groups`.
    """
    groups = find_groups(parameters)
    if name not in groups:
        raise StudyError(f"{name}: no such group of runs; there are {', '.join(groups)}")
    return groups[name]


def _section_groups(parameters: Parameters) -> list[Group]:
    """Return the groups of the sections in ``params/mechanisms.yaml``, and of the recipe."""
    sections = read_sections(parameters)
    quick = sections.quick.get(parameters.profile)
    groups = []
    for name, section in sections.sections.items():
        size = sections.sizes[section.size]
        shared = size | section.shared
        if quick and "epochs" in size:
            shared["epochs"] = size["epochs"]  # even if the section sets its own
        protocol = shared.get("protocol", "published")
        # Every fold of a cross-validation has seeds of its own; a single fold has the listed ones.
        if protocol == "heldout" and len(section.folds) > 1:
            draws = heldout_draws(section.seeds, section.folds)
        else:
            draws = [{"fold": fold, "seed": seed} for seed in section.seeds for fold in section.folds]
        file = RECIPE if name == RECIPE else "mechanisms"
        where = f"params/{file}.yaml: section {name!r}, "
        variants = expand_variants(section.variants, shared, draws, where)
        if quick:
            variants = _take_first(variants, quick.first)
        groups.append(Group(f"mechanisms/{name}", section.notebook, variants))
    return groups


def _take_first(variants: dict[str, list[RunConfig]], number: int) -> dict[str, list[RunConfig]]:
    """Return the first ``number`` runs, counting the first run of every variant before any second one."""
    runs = []
    # All variants have the same number of runs, because the section sets seeds and folds.
    for draw in zip(*variants.values(), strict=True):
        runs += zip(variants, draw, strict=True)
    kept: dict[str, list[RunConfig]] = {}
    for label, config in runs[:number]:
        kept.setdefault(label, []).append(config)
    return kept


def list_runs(parameters: Parameters) -> dict[str, RunConfig]:
    """Return every run of a study once, by label, in the order in which runs are trained.

    The order is: published families, held-out families, those at the second size, sections. Within each of these four,
    seeds and folds vary slowest, so that every row of every table has its first run before any row has its second.
    """
    groups = find_groups(parameters)
    runs = {}
    for protocol in (*PROTOCOLS, SECOND, "mechanisms"):
        # A run that several groups share, such as the baseline, is listed where it is needed first.
        variants = []
        for group in groups.values():
            if group.name.startswith(f"{protocol}/"):
                variants += group.variants.values()
        for position in range(max(map(len, variants), default=0)):
            for configs in variants:
                if position < len(configs):
                    config = configs[position]
                    runs.setdefault(config.label, config)
    return runs


def open_store(parameters: Parameters, catalog: Catalog) -> Store:
    """Return the store of the profile's runs on ``catalog``."""
    return Store(parameters.runs_path, catalog.fingerprint)


def find_or_train(config: RunConfig, catalog: Catalog, store: Store, *, threads: int | None = None) -> Run:
    """Return the finished run of ``config`` from the store; train it first if it is not there.

    Raises:
        StudyError: The run cannot be trained as asked, or a file cannot be read or written, for example because the
            disk is full or the store is read-only. Names the run.
    """
    try:
        run = store.find(config)
        if run:
            return run
        # Imported only where a run is trained, because a Keras backend takes seconds to import.
        from busi import training

        return training.train(config, catalog, store, threads=threads)
    except StudyError as error:
        raise StudyError(f"{config.label}: {error}") from error
    except OSError as error:
        raise StudyError(f"{config.label}: {error}; fix this and rerun: finished epochs are kept") from error


def find_trained(config: RunConfig, store: Store) -> Run:
    """Return a finished run whose network is in the store.

    Raises:
        NotMeasured: The store does not hold the run, which may have been trained on another machine.
    """
    run = store.find(config)
    if run is None:
        raise NotMeasured(
            f"{config.label}: its network is not in {store.root}; train it with: "
            f"busi train {config.label} -f params/PROFILE.yaml -p data_dir=FOLDER"
        )
    return run


def load_results(parameters: Parameters, name: str) -> Results:
    """Return the results of a group, e.g. "heldout/loss"; if `train_missing` is set, missing runs are trained first.

    Without `train_missing` no data are needed: the results that the report has gathered are returned, including those
    of runs with fewer epochs than planned.

    Raises:
        StudyError: The data are missing or faulty, a run cannot be trained, or the report holds results of other data,
            another size or other settings.
    """
    group = find_group(parameters, name)
    if not parameters.train_missing:
        # Someone who only reads the report gets what it has, perhaps from runs with fewer epochs.
        return match_results(read_results(parameters, name), group.variants)
    return gather_results(parameters, group, load_catalog(parameters), train=True)


def gather_results(parameters: Parameters, group: Group, catalog: Catalog, *, train: bool) -> Results:
    """Gather the results of a group's runs into the report and return them.

    A run counts as finished if its folder is in the store or if its results have been gathered before, perhaps on
    another machine. If the scoring code has changed, runs whose folder is in the store are scored again.

    Args:
        parameters: Parameters of the study.
        group: The group.
        catalog: The images.
        train: Whether missing runs are trained. If not, the report keeps the results that it has for them, perhaps with
            fewer epochs.
    """
    gathered = read_results(parameters, group.name)
    # Checked first, because training takes hours, and its results would then be refused.
    refuse_other_results(parameters, group.name, gathered, group.variants, catalog.fingerprint)
    store = open_store(parameters, catalog)
    versions = {(row.variant, row.key): row.scoring_version for row in gathered.runs.itertuples()}
    parts = []
    collected = set()
    for variant, configs in group.variants.items():
        for config in configs:
            version = versions.get((variant, store.key(config)))
            # Where the predictions are on another machine, scores of an older version are better than none.
            if version == scoring_version() or (version and not store.folder(config).is_dir()):
                continue
            run = find_or_train(config, catalog, store) if train else store.find(config)
            if run:
                # This scores the run if this version of the scoring code has not done so.
                parts.append(collect_results(variant, run, catalog))
                collected.add((variant, config.label))
    if not parts:
        return match_results(gathered, group.variants)
    with lock_results(parameters, group.name):
        # Read again, because another process may have gathered some runs meanwhile.
        gathered = read_results(parameters, group.name)
        # A run that is missing here may have been gathered with fewer epochs; those results are still worth showing.
        kept = [row.Index for row in gathered.runs.itertuples() if (row.variant, row.run) not in collected]
        asked = match_results(join_results([gathered.in_order(kept), *parts]), group.variants)
        everything = join_results([asked, keep_others(gathered, group.variants)])
        # Equal results are not written again, so that neither git nor Snakemake sees a change.
        if not everything.runs.equals(gathered.runs):
            write_results(parameters, group.name, everything)
    return asked


def count_by_experiment(groups: Mapping[str, Group], gathered: Mapping[str, Results]) -> pd.DataFrame:
    """Count the planned runs of a study, and those of them that have been trained.

    Args:
        groups: As `find_groups`.
        gathered: The results of each group, by its name.

    Returns:
        One row each for the published rows, the held-out variants, those at the second size, and every section with
        runs of its own: `experiment`, `size` (pixels and filters), `trained` and `planned`. A run that several families
        share counts once.
    """
    planned: dict[str, dict[str, RunConfig]] = {}
    trained: dict[str, set[str]] = {}
    for name, group in groups.items():
        kind, _, section = name.partition("/")
        experiment = _EXPERIMENTS.get(kind, section)
        own = {config.label: config for config in group.configs}
        planned.setdefault(experiment, {}).update(own)
        # A report may also hold runs of an earlier plan.
        finished = own.keys() & set(gathered[name].runs.run)
        trained.setdefault(experiment, set()).update(finished)
    rows = []
    for experiment, runs in planned.items():
        sizes = dict.fromkeys(f"{run.image_size} pixels, {run.base_filters} filters" for run in runs.values())
        row = {"experiment": experiment, "size": "; ".join(sizes), "trained": len(trained[experiment])}
        rows.append(row | {"planned": len(runs)})
    return pd.DataFrame(rows)


def gathered_keys(parameters: Parameters, catalog: Catalog) -> set[str]:
    """Return the keys of all runs on the images of ``catalog`` whose results the report has gathered."""
    keys = set()
    for name in find_groups(parameters):
        keys |= read_keys(parameters, name, catalog.fingerprint)
    return keys


def measure_images(parameters: Parameters) -> pd.DataFrame:
    """Return the table of `busi.dataset.catalog.describe_images`, one row for each image."""
    return measure(parameters, "dataset", describe_images, number=None)


def compares_with_paper(parameters: Parameters) -> bool:
    """Return whether published numbers are shown beside ours: the images are BUSI's, or phantoms that replace them."""
    return parameters.data_dir == "phantom" or is_released(measure_images(parameters))


def measure_split(parameters: Parameters) -> pd.DataFrame:
    """Return the grouped split of the images, as `busi.dataset.splits.make_split`."""

    def load(catalog: Catalog) -> pd.DataFrame:
        return splits.load_split(catalog, "grouped")

    return measure(parameters, "split", load, depends=[splits.read_split_file("grouped")], code=(splits, duplicates))


def measure_audit(parameters: Parameters) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the tables of `describe_files`, `describe_pixels` and `mean_mask` in `busi.dataset.audit`."""
    files = measure(parameters, "files", audit.describe_files)
    # If no row names a file, pandas has read the column as numbers.
    files["files"] = files.files.astype(object).fillna("")
    pixels = measure(parameters, "audit", audit.describe_pixels)
    return files, pixels, measure(parameters, "mean_mask", audit.mean_mask, number="%.4f")


def measure_duplicates(parameters: Parameters) -> pd.DataFrame:
    """Return the number of pairs of images at each distance, as `busi.dataset.duplicates.count_distances`."""
    return measure(parameters, "duplicates", duplicates.count_distances)


def published_targets_config(parameters: Parameters) -> RunConfig:
    """Return a configuration with the targets that the published rows are trained on."""
    return validate(RunConfig, "settings", {"image_size": parameters.image_size} | parameters.settings)


def measure_floors(parameters: Parameters) -> dict[str, float]:
    """Return the scores of constant predictors, as `busi.scoring.floors.constant_floors`."""
    config = published_targets_config(parameters)

    def compute(catalog: Catalog) -> pd.DataFrame:
        values = floors.constant_floors(arrays.published_arrays(catalog, config).targets)
        return pd.DataFrame(values.items(), columns=["floor", "value"])

    depends = [json.dumps(config.model_dump())]
    table = measure(parameters, "floors", compute, depends=depends, code=(floors, arrays), number=None)
    return dict(zip(table.floor, table.value, strict=True))


def published_configs(parameters: Parameters) -> dict[str, RunConfig]:
    """Return the configuration of the first run of each distinct published row that the study has, by row."""
    planned = {family: read_family(family, parameters).configs("published") for family in families()}
    configs = {}
    for row in distinct_rows().itertuples():
        # An extended or reduced study may have only some of the families and rows.
        variants = planned.get(row.family, {})
        if row.row in variants:
            configs[row.row] = variants[row.row][0]
    return configs


def measure_blind(parameters: Parameters) -> pd.DataFrame:
    """Return the scores of blind predictors, which never look at an image, for each distinct published row.

    Returns:
        `predictor` ("constant", "two biases" or "mean mask"), `row` (as `busi.published.distinct_rows`), `order` of the
        images ("by class", "mixed", or "any" where it does not matter), `orders` (number of orders), and the lowest and
        highest `loss`, `accuracy` and `auc` over these orders, e.g. `loss_low` and `loss_high`.
    """
    config = published_targets_config(parameters)
    rows = published_configs(parameters)

    def compute(catalog: Catalog) -> pd.DataFrame:
        targets = arrays.published_arrays(catalog, config).targets
        constants = floors.constant_floors(targets)
        by_class = np.arange(len(targets))[None]
        # The published order is mixed; by class is another reading of the protocol.
        orders = {"by class": by_class, "mixed": blind.draw_orders(len(targets), range(BLIND_ORDERS))}
        table = []
        for row, run in rows.items():
            lowest = {"loss": floors.lowest_loss(run.loss, constants)}
            lowest |= {"accuracy": constants["accuracy"], "auc": constants["auc"]}
            still = {"constant": lowest, "mean mask": blind.score_mean_mask(targets, run.loss)}
            for predictor, scores in still.items():
                ranges = blind.find_ranges(pd.DataFrame([scores]))
                table.append({"predictor": predictor, "row": row, "order": "any"} | ranges)
            for order, drawn in orders.items():
                ranges = blind.find_ranges(blind.train_biases(targets, drawn, run))
                table.append({"predictor": "two biases", "row": row, "order": order} | ranges)
        return pd.DataFrame(table)

    depends = [json.dumps(each.model_dump()) for each in (config, *rows.values())] + [str(BLIND_ORDERS)]
    return measure(parameters, "blind", compute, depends=depends, code=(blind, floors, arrays), number="%.6f")


def measure_untrained(parameters: Parameters, protocol: str = "heldout") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the scores and the pixels of the untrained predictors, as `busi.scoring.predictors.score_untrained`.

    Args:
        parameters: Parameters of the study.
        protocol: "heldout" or `busi.config.SECOND`: the size at which masks are averaged and the ceiling is measured.
    """
    config = validate(RunConfig, "heldout", parameters.heldout_fields(protocol))
    scored: list[tuple[pd.DataFrame, pd.DataFrame]] = []

    def score(catalog: Catalog) -> tuple[pd.DataFrame, pd.DataFrame]:
        # Both tables come from one pass over the images, which takes a minute or two.
        if not scored:
            scored.append(predictors.score_untrained(catalog, config))
        return scored[0]

    switches = {name: getattr(config, name) for name in (*arrays.SWITCHES, "split")}
    depends = [json.dumps(switches), splits.read_split_file(config.split)]
    folder = "untrained" if protocol == "heldout" else f"untrained/{protocol}"
    made = {"depends": depends, "code": (predictors, metrics, duplicates, splits, arrays, selection)}
    images = measure(parameters, f"{folder}/images", lambda catalog: score(catalog)[0], number="%.6f", **made)
    pixels = measure(parameters, f"{folder}/pixels", lambda catalog: score(catalog)[1], **made)
    return images, pixels


def measure_outlines(parameters: Parameters, name: str) -> pd.DataFrame:
    """Return the outlines in the best, median and worst held-out lesion image of each variant of a held-out group.

    Each variant has a file of its own, because the networks of one may be in the store where those of another are not.

    Returns:
        `variant`, `case` ("best", "median", "worst"), `dice`, the columns of `busi.scoring.outlines.trace_case`, and
        `n_runs` of the variant, among whose images the cases were chosen.
        There are no rows for a variant that was trained on another machine and whose outlines were not traced there.
    """
    gathered = load_results(parameters, name)
    tables = [pd.DataFrame(columns=["variant", *outlines.CASE_COLUMNS])]
    for variant in gathered.variants:
        try:
            table = _trace_variant(parameters, gathered.of(variant))
        except NotMeasured:
            continue
        tables.append(table.assign(variant=variant))
    return stack(tables)


def _trace_variant(parameters: Parameters, trained: Results) -> pd.DataFrame:
    """Return the outlines of one variant's cases: the table of `measure_outlines` without the column `variant`."""

    def trace(catalog: Catalog) -> pd.DataFrame:
        store = open_store(parameters, catalog)
        configs = dict(zip(trained.runs.run, trained.configs, strict=True))
        tables = []
        for case, image in outlines.choose_cases(trained.images).items():
            run = find_trained(configs[image.run], store)
            traced = outlines.trace_case(run, catalog, image["name"])
            tables.append(traced.assign(case=case, dice=image.dice, n_runs=len(trained.runs)))
        return pd.concat(tables, ignore_index=True)[outlines.CASE_COLUMNS]

    # Named by settings, not by label, because families share variants such as the baseline.
    file = f"outlines/heldout/{trained.runs['name'][0]}"
    depends = [*trained.runs.key, scoring_version()]
    return measure(parameters, file, trace, depends=depends, code=(outlines, arrays))
