"""Results in a report: written and read, matched with what is asked for, refused, measured, and findings."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_study import finish_run, refusal

from busi import results, runs
from busi.config import Parameters, RunConfig
from busi.dataset.arrays import published_arrays
from busi.dataset.catalog import load_catalog, read_catalog
from busi.results import NotMeasured, Results
from busi.runs import Predictions, Store
from busi.scoring.floors import constant_floors
from busi.scoring.metrics import pool_pixels
from busi.scoring.scores import find_or_score, scoring_version

pytestmark = [
    pytest.mark.filterwarnings("ignore::busi.dataset.catalog.CountWarning"),
    pytest.mark.usefixtures("here"),
]

DATA = "0123456789012345"
"""Fingerprint that could be mistaken for a number."""

KLD = [RunConfig(loss="kld", epochs=3, seed=seed) for seed in (0, 1)]
DICE = [RunConfig(loss="dice", epochs=3, seed=seed) for seed in (0, 1)]

LOSSES = {"KLD": KLD, "DICE": DICE}
"""Two variants of the group `GROUP`, two seeds each."""

GROUP = "published/loss"

HELDOUT = RunConfig(protocol="heldout", image_size=32, fold=1, seed=6, epochs=2)


@pytest.fixture
def parameters():
    return Parameters(profile="tiny", epochs=3)


def make_results(variants, fingerprint=DATA, **columns):
    """Return results of runs of two epochs each, every number of which is an awkward one."""
    rows, epochs = [], []
    for variant, configs in variants.items():
        for run in configs:
            head = {"variant": variant, "run": run.label, "fold": run.fold, "seed": run.seed}
            described = {
                "name": run.name,
                "key": Store(Path(), fingerprint).key(run),
                "fingerprint": fingerprint,
                "training_version": runs.TRAINING_VERSION,
                "scoring_version": np.nan,
                "config": json.dumps(run.model_dump()),
                "planned_epochs": run.epochs,
                "epochs": 2,
                "training_loss": 0.1 + 0.2 + run.seed,
                "seconds": 1 / 3,
            }
            rows.append(head | described | columns)
            epochs += [head | {"epoch": k, "loss": run.seed + 1 / 7 / k, "seconds": 0.1 * k} for k in (1, 2)]
    empty = results.empty_results()
    table = pd.DataFrame(rows).astype({"scoring_version": "str"})
    return Results(table, pd.DataFrame(epochs), empty.images)


def make_heldout_results(variants):
    """Return results of held-out runs with two images each."""
    made = make_results(variants, scoring_version="0123456e")
    images = []
    for row in made.runs.itertuples():
        head = {"variant": row.variant, "run": row.run, "fold": row.fold, "seed": row.seed}
        for name, dice in (("benign (1)", row.seed + 1 / 3), ("normal (1)", np.nan)):
            images.append(head | {"image_class": "benign", "name": name, "group": 1, "lesion_share": 0.1, "dice": dice})
    return Results(made.runs, made.epochs, pd.DataFrame(images))


def list_files(folder):
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


# Selecting rows


def test_variants_are_those_with_a_run_in_the_order_of_the_runs():
    made = make_results({"B": KLD, "A": DICE[:1], "C": []})
    assert made.variants == ["B", "A"]
    assert results.empty_results().variants == []


@pytest.mark.parametrize("make", [make_results, make_heldout_results])
def test_the_rows_of_one_variant_are_selected_in_every_table(make):
    made = make({"A": [HELDOUT, HELDOUT.model_copy(update={"seed": 11})], "B": [HELDOUT]})
    chosen = made.of("B")
    for name, table in made.tables.items():
        expected = table[table.variant == "B"].reset_index(drop=True)
        pd.testing.assert_frame_equal(chosen.tables[name], expected)
    assert chosen.configs == [HELDOUT]
    assert made.of("C").runs.empty and made.of("C").epochs.empty


def test_runs_are_put_into_an_order_with_the_rows_of_every_table():
    made = make_heldout_results({"A": [HELDOUT.model_copy(update={"seed": seed}) for seed in (5, 6, 7)]})
    ordered = made.in_order([2, 0])
    assert ordered.runs.seed.tolist() == [7, 5]
    assert ordered.epochs[["seed", "epoch"]].values.tolist() == [[7, 1], [7, 2], [5, 1], [5, 2]]
    assert ordered.images.seed.tolist() == [7, 7, 5, 5]
    assert ordered.images.name.tolist() == ["benign (1)", "normal (1)"] * 2


def test_the_same_run_under_two_variants_keeps_its_rows_apart():
    """The published baseline is a row of several tables, and a run may stand twice in one group."""
    made = make_heldout_results({"A": [HELDOUT], "B": [HELDOUT]})
    assert made.runs.run.nunique() == 1
    assert [len(table) for table in made.of("B").tables.values()] == [1, 2, 2]
    assert set(made.of("B").images.variant) == {"B"}


def test_joined_results_stand_one_below_the_other_with_their_types():
    one, other = make_results({"A": KLD}), make_results({"B": DICE})
    joined = results.join_results([results.empty_results(), one, other, results.empty_results()])
    assert joined.variants == ["A", "B"]
    assert joined.runs.seed.tolist() == [0, 1, 0, 1]
    assert joined.runs.index.tolist() == [0, 1, 2, 3]
    pd.testing.assert_series_equal(joined.epochs.dtypes, one.epochs.dtypes)
    assert results.join_results([]).runs.columns.tolist() == results.COLUMNS["runs"]


# Written and read


@pytest.mark.parametrize("make", [make_results, make_heldout_results])
def test_results_are_read_to_the_last_digit_as_they_were_written(parameters, make):
    made = make({"A": [HELDOUT, HELDOUT.model_copy(update={"seed": 11})], "B, with a comma": [HELDOUT]})
    results.write_results(parameters, GROUP, made)
    read = results.read_results(parameters, GROUP)
    for name, table in made.tables.items():
        pd.testing.assert_frame_equal(read.tables[name], table, check_exact=True, check_dtype=len(table) > 0)
    assert read.configs == [HELDOUT, HELDOUT.model_copy(update={"seed": 11}), HELDOUT]
    assert list_files(parameters.results_path) == {
        f"{GROUP}/{name}" for name in ("runs.csv", "epochs.csv.xz", "images.csv.xz")
    }


def test_written_files_do_not_depend_on_when_they_are_written(parameters):
    made = make_heldout_results({"A": [HELDOUT]})
    written = []
    for _ in range(2):
        results.write_results(parameters, GROUP, made)
        written.append({file: file.read_bytes() for file in (parameters.results_path / GROUP).iterdir()})
    assert written[0] == written[1]


def test_a_group_without_results_has_empty_tables_with_columns(parameters):
    read = results.read_results(parameters, GROUP)
    assert {name: table.columns.tolist() for name, table in read.tables.items()} == results.COLUMNS
    assert [len(table) for table in read.tables.values()] == [0, 0, 0]
    assert (read.variants, read.configs) == ([], [])
    assert read.of("KLD").runs.empty


def remove(file):
    file.unlink()


def cut_in_half(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file):
    file.write_bytes(b"")


def replace_by_pointer(file):
    """Leave what git checks out where a large file has not been fetched."""
    file.write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")


@pytest.mark.parametrize("damage", [remove, cut_in_half, empty, replace_by_pointer])
@pytest.mark.parametrize("name", ["epochs.csv.xz", "images.csv.xz"])
def test_a_damaged_compressed_table_is_named(parameters, name, damage):
    results.write_results(parameters, GROUP, make_heldout_results({"A": [HELDOUT]}))
    file = parameters.results_path / GROUP / name
    damage(file)
    told = refusal(results.read_results, parameters, GROUP)
    assert told.startswith(f"{file}: not readable (")
    assert told.endswith(f"); restore it (git checkout) or delete {file.parent}")


@pytest.mark.parametrize("damage", [remove, empty])
def test_a_damaged_table_is_named(parameters, damage):
    results.write_results(parameters, GROUP, make_results(LOSSES))
    file = parameters.results_path / GROUP / "runs.csv"
    damage(file)
    assert refusal(results.read_results, parameters, GROUP).startswith(f"{file}: not readable (")


@pytest.mark.parametrize(("name", "column"), [("runs.csv", "fingerprint"), ("epochs.csv.xz", "loss")])
def test_a_table_without_one_of_its_columns_is_named(parameters, name, column):
    results.write_results(parameters, GROUP, make_results(LOSSES))
    file = parameters.results_path / GROUP / name
    pd.read_csv(file).drop(columns=column).to_csv(file, index=False)
    assert refusal(results.read_results, parameters, GROUP).startswith(f"{file}: no column {column}; ")


# Matched with what is asked for


def test_the_runs_asked_for_are_matched_in_the_order_asked():
    made = make_results({"DICE": DICE[::-1], "KLD": KLD})
    assert results.match_results(made, LOSSES).configs == [*KLD, *DICE]
    assert results.match_results(made, {"DICE": DICE[:1]}).configs == DICE[:1]
    assert results.match_results(made, {"BCE": [RunConfig(epochs=3)]}).runs.empty


def test_runs_of_fewer_epochs_are_matched_and_of_more_are_not():
    made = make_results(LOSSES)
    longer, shorter = (
        {variant: [run.model_copy(update={"epochs": epochs}) for run in asked] for variant, asked in LOSSES.items()}
        for epochs in (75, 2)
    )
    assert results.match_results(made, longer).configs == [*KLD, *DICE]
    assert results.match_results(made, shorter).runs.empty


@pytest.mark.parametrize(
    "other", [{"masks": "all"}, {"image_size": 284}, {"base_filters": 32}, {"precision": "mixed_bfloat16"}, {"seed": 2}]
)
def test_a_run_of_other_settings_under_the_same_label_is_not_matched(other):
    made = make_results({"KLD": [RunConfig(**KLD[0].model_dump() | other)]})
    assert results.match_results(made, LOSSES).runs.empty


def test_runs_of_other_variants_seeds_and_folds_are_kept():
    folds = [HELDOUT.model_copy(update={"fold": fold, "seed": fold}) for fold in range(3)]
    made = make_heldout_results({"A": folds, "B": [HELDOUT]})
    kept = results.keep_others(made, {"A": folds[1:2], "B": []})
    assert kept.configs == [folds[0], folds[2], HELDOUT]
    assert kept.runs.variant.tolist() == ["A", "A", "B"]
    assert kept.images.fold.tolist() == [0, 0, 2, 2, 1, 1]
    assert results.keep_others(made, {"A": folds, "B": [HELDOUT]}).runs.empty


# Refused


def refuse(parameters, before, variants, fingerprint=DATA):
    results.refuse_other_results(parameters, GROUP, before, variants, fingerprint)


def changed(**fields):
    return {variant: [RunConfig(**run.model_dump() | fields) for run in asked] for variant, asked in LOSSES.items()}


@pytest.mark.parametrize(
    "fields, difference",
    [
        ({"image_size": 284}, "image_size 300, and these are of 284 (KLD)"),
        ({"base_filters": 32}, "base_filters 64, and these are of 32 (KLD)"),
        ({"precision": "mixed_bfloat16"}, "precision float32, and these are of mixed_bfloat16 (KLD)"),
        ({"epochs": 2}, "epochs 3, and these are of 2 (KLD)"),
        ({"epochs": 2, "seed": 7}, "epochs 3, and these are of 2 (KLD)"),
        ({"learning_rate": 0.5}, "learning_rate 0.01, and these are of 0.5 (KLD)"),
        ({"masks": "all"}, "masks first, and these are of all (KLD)"),
    ],
)
def test_results_of_another_size_or_settings_do_not_replace_those_of_a_report(parameters, fields, difference):
    told = refusal(refuse, parameters, make_results(LOSSES), changed(**fields))
    assert told.startswith(f"{parameters.results_path / GROUP}: holds results of {difference}. ")


def test_results_of_other_data_do_not_replace_those_of_a_report(parameters):
    told = refusal(refuse, parameters, make_results(LOSSES), LOSSES, DATA[::-1])
    assert f"holds results of data {DATA}, and these are of data {DATA[::-1]} (KLD)." in told


def test_a_single_variant_of_another_size_is_refused(parameters):
    made = make_results(LOSSES)
    told = refusal(refuse, parameters, made, LOSSES | {"DICE": changed(base_filters=2)["DICE"]})
    assert "base_filters 64, and these are of 2 (DICE)" in told


@pytest.mark.parametrize("fields", [{}, {"epochs": 4}, {"seed": 7}])
def test_more_epochs_and_other_seeds_are_not_refused(parameters, fields):
    refuse(parameters, make_results(LOSSES), changed(**fields))


def test_nothing_is_refused_where_there_are_no_results(parameters):
    refuse(parameters, results.empty_results(), LOSSES)
    refuse(parameters, make_results({"BCE": [RunConfig(image_size=284)]}), LOSSES, DATA[::-1])


# Collected from a run's folder


ENVIRONMENT = {"finished": "2024-02-29", "python": "3.12.1", "cores": 2}


def test_a_published_run_is_one_row_with_both_readings_of_its_metrics(here, phantom_dir):
    catalog = read_catalog(phantom_dir, expected=None)
    store = Store(here / "runs", catalog.fingerprint)
    half = np.full((len(catalog.lesions), 116, 116), 0.5, np.float32)
    predictions = {"training": Predictions(catalog.lesions.name, half)}
    history = {"epoch": [1, 2], "loss": [0.5, 0.3], "auc": [0.6, 0.7], "seconds": [1.5, 2.5]}
    outcome = {
        "training": {"loss": 0.3, "auc": 0.7},
        "still": {"loss": 0.2, "auc": 0.9},
        "images": 10,
        "seconds": 4.0,
        "parameters": 1234,
        "end": "planned",
    }
    run = finish_run(store, KLD[1], predictions, outcome, history, ENVIRONMENT)
    collected = results.collect_results("My row", run, catalog)
    (row,) = collected.runs.to_dict("records")
    # One answer for every pixel, which costs ln 2 whatever the target; from one half on everything is lesion.
    assert (row.pop("fate"), row.pop("crossentropy")) == ("dead", pytest.approx(np.log(2)))
    assert 0 < row.pop("dice") < row.pop("mask_dice") < 1
    floor = constant_floors(published_arrays(catalog, KLD[1]).targets)["kld"]
    assert row.pop("relative_loss") == pytest.approx(0.2 / floor)
    assert row == {
        "variant": "My row",
        "run": "published/300px-64f-3e/loss-kld/fold0-seed1",
        "fold": 0,
        "seed": 1,
        "name": "loss-kld",
        "key": store.key(KLD[1]),
        "fingerprint": catalog.fingerprint,
        "training_version": runs.TRAINING_VERSION,
        "scoring_version": scoring_version(),
        "config": json.dumps(KLD[1].model_dump()),
        "planned_epochs": 3,
        "epochs": 2,
        "images": 10,
        "seconds": 4.0,
        "parameters": 1234,
        "training_loss": 0.3,
        "training_auc": 0.7,
        "still_loss": 0.2,
        "still_auc": 0.9,
        "end": "planned",
        **ENVIRONMENT,
    }
    assert list(row)[:4] == results.HEAD
    assert collected.epochs.columns.tolist() == [*results.HEAD, "epoch", "loss", "auc", "seconds"]
    assert collected.epochs.auc.tolist() == [0.6, 0.7]
    assert collected.images.empty and collected.pooled.columns.empty


@pytest.fixture
def scored_run(here, quarters_dir):
    """Return a held-out run with made-up predictions, and its images."""
    catalog = read_catalog(quarters_dir, expected=None)
    store = Store(here / "runs", catalog.fingerprint)
    probability = np.random.default_rng(0).random((3, 32, 32), dtype=np.float32)
    predictions = {"test": Predictions(catalog.table.name[[0, 20, 33]], probability)}
    history = {"epoch": [1, 2], "loss": [0.5, 0.3], "validation_dice": [0.1, 0.2], "seconds": [1, 1]}
    outcome = {"threshold": 0.4, "best_epoch": 2, "epochs": 2, "validation_dice": 0.2, "images": 9, "seconds": 2.0}
    return finish_run(store, HELDOUT, predictions, outcome, history, ENVIRONMENT), catalog


def test_a_heldout_run_is_scored_and_named_in_every_row(scored_run):
    run, catalog = scored_run
    collected = results.collect_results("A", run, catalog)
    (row,) = collected.runs.to_dict("records")
    assert (row["threshold"], row["best_epoch"], row["epochs"], row["validation_dice"]) == (0.4, 2, 2, 0.2)
    assert (row["scoring_version"], row["fingerprint"]) == (scoring_version(), catalog.fingerprint)
    scores = find_or_score(run, catalog)
    assert collected.images.columns.tolist() == [*results.HEAD, *scores.images.columns]
    assert set(collected.images.run) == {run.config.label}
    assert set(collected.images.variant) == {"A"}
    pd.testing.assert_frame_equal(collected.images[scores.images.columns], scores.images)
    assert collected.pooled.to_dict("records") == [pool_pixels(scores.pixels)]
    assert collected.images.name.tolist() == catalog.table.name[[0, 20, 33]].tolist()


# Measured on the data


@pytest.fixture
def measured(phantom_dir):
    """Return the parameters of a study whose data are at hand, and a function that counts how often it measures."""
    return Parameters(profile="tiny", data_dir=str(phantom_dir)), Counter()


class Counter:
    """Measures a table and counts how often it has done so."""

    def __init__(self):
        self.count = 0
        self.__module__, self.__qualname__ = __name__, "Counter"

    def __call__(self, catalog):
        self.count += 1
        return pd.DataFrame({"images": [len(catalog.table)], "share": [1 / 3], "count": [self.count]})


def test_a_table_is_measured_once_and_read_from_then_on(measured):
    parameters, make = measured
    first = results.measure(parameters, "sizes", make)
    assert results.measure(parameters, "sizes", make).equals(first)
    assert make.count == 1
    assert first.to_dict("list") == {"images": [12], "share": [0.333333], "count": [1]}
    # All digits, where that is asked for.
    assert results.measure(parameters, "digits", make, number=None).share.tolist() == [1 / 3]


def test_a_measured_table_is_headed_by_the_fingerprint_of_its_data(measured):
    parameters, make = measured
    results.measure(parameters, "mechanisms/sizes", make)
    lines = (parameters.results_path / "mechanisms" / "sizes.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(f"# data {load_catalog(parameters).fingerprint} made by ")
    assert lines[1:] == ["images,share,count", "12,0.333333,1"]


def test_a_table_is_measured_again_when_what_it_depends_on_changes(measured):
    parameters, make = measured
    for depends in (["a"], ["a"], ["b"], ["b", "c"], ["b", "c"]):
        results.measure(parameters, "sizes", make, depends=depends)
    assert make.count == 3


def test_a_table_is_measured_again_when_its_code_changes(measured, monkeypatch):
    parameters, make = measured
    versions = {runs: "first", make: "mine"}
    monkeypatch.setattr(results, "code_version", lambda *parts: "-".join(versions[part] for part in parts))
    for _ in range(2):
        results.measure(parameters, "sizes", make, code=(runs,))
    assert make.count == 1
    versions[runs] = "second"
    results.measure(parameters, "sizes", make, code=(runs,))
    assert make.count == 2
    # The function that makes the table counts as well.
    versions[make] = "changed"
    results.measure(parameters, "sizes", make, code=(runs,))
    assert make.count == 3


def test_a_measured_table_is_read_without_data(measured):
    parameters, make = measured
    first = results.measure(parameters, "sizes", make)
    reader = parameters.model_copy(update={"data_dir": "", "train_missing": False})
    assert results.measure(reader, "sizes", make, depends=["other"]).equals(first)
    assert make.count == 1


def test_a_table_that_was_never_measured_is_not_measured_without_training(measured):
    parameters, make = measured
    reader = parameters.model_copy(update={"train_missing": False})
    with pytest.raises(NotMeasured) as caught:
        results.measure(reader, "sizes", make)
    assert str(caught.value).startswith(f"{parameters.results_path / 'sizes.csv'}: not measured yet; ")
    assert make.count == 0
    assert not parameters.report_path.exists()


def test_a_table_of_other_data_is_not_replaced(measured, quarters_dir):
    parameters, make = measured
    results.measure(parameters, "sizes", make)
    before = (parameters.results_path / "sizes.csv").read_bytes()
    other = parameters.model_copy(update={"data_dir": str(quarters_dir)})
    told = refusal(results.measure, other, "sizes", make)
    assert told.startswith(f"{parameters.results_path / 'sizes.csv'}: holds results of other data (# data ")
    assert f", and these are of data {load_catalog(other).fingerprint}. " in told
    assert make.count == 1
    assert (parameters.results_path / "sizes.csv").read_bytes() == before


def test_a_table_of_other_data_may_be_measured_for_a_report_of_its_own(measured, quarters_dir):
    parameters, make = measured
    results.measure(parameters, "sizes", make)
    other = parameters.model_copy(update={"data_dir": str(quarters_dir), "report": "other"})
    assert results.measure(other, "sizes", make).images.tolist() == [34]
    assert results.measure(parameters, "sizes", make).images.tolist() == [12]


def test_an_interrupted_measurement_leaves_no_table(measured):
    parameters, make = measured

    def fail(catalog):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        results.measure(parameters, "sizes", fail)
    assert not (parameters.results_path / "sizes.csv").exists()
    assert results.measure(parameters, "sizes", make).images.tolist() == [12]


def test_notebooks_side_by_side_measure_a_table_once(measured):
    parameters, make = measured
    load_catalog(parameters)
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda _: results.measure(parameters, "sizes", make), range(8)))
    assert make.count == 1
    assert all(table.equals(tables[0]) for table in tables)


# Tables and findings of notebooks


def test_a_table_is_written_with_six_decimals_and_read_back(parameters):
    # "None" is a name here, whatever it means elsewhere.
    table = pd.DataFrame({"variant": ["A, B", "None"], "value": [1 / 3, np.nan], "count": [1, 2]})
    assert results.write_table(parameters, "loss", table) is table
    file = parameters.tables_path / "loss.csv"
    assert file.read_text(encoding="utf-8") == 'variant,value,count\n"A, B",0.333333,1\nNone,,2\n'
    pd.testing.assert_frame_equal(results.read_table(parameters, "loss"), table.round(6))
    assert results.write_table(parameters, "loss", table, number="%.2f") is table
    assert "0.33,1" in file.read_text(encoding="utf-8")


def test_a_table_that_no_notebook_has_written_is_named(parameters):
    with pytest.raises(NotMeasured) as caught:
        results.read_table(parameters, "loss")
    assert str(caught.value).startswith(f"{parameters.tables_path / 'loss.csv'}: not written yet; ")


def test_findings_are_merged_by_section_and_name(parameters):
    assert results.read_findings(parameters) == {}
    results.record_finding(parameters, "summary", rows="9 of 9 – rows", size={"Images": "7"})
    results.record_finding(parameters, "claims", first="upheld")
    results.record_finding(parameters, "summary", rows="8 of 9 rows", ladder="0.70")
    assert results.read_findings(parameters) == {
        "summary": {"rows": "8 of 9 rows", "size": {"Images": "7"}, "ladder": "0.70"},
        "claims": {"first": "upheld"},
    }


def test_the_file_of_findings_does_not_depend_on_the_order_of_the_notebooks(parameters):
    facts = [("summary", {"b": "2 – two"}), ("claims", {"a": "1"}), ("summary", {"a": "1"})]
    texts = []
    for order in (facts, facts[::-1]):
        file = parameters.report_path / "findings.json"
        file.unlink(missing_ok=True)
        for section, values in order:
            results.record_finding(parameters, section, **values)
        texts.append(file.read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    assert "2 – two" in texts[0]


def test_findings_of_notebooks_side_by_side_are_all_kept(parameters):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: results.record_finding(parameters, f"page{k % 4}", **{f"fact{k}": k}), range(32)))
    findings = results.read_findings(parameters)
    assert sorted(findings) == ["page0", "page1", "page2", "page3"]
    assert sum(len(facts) for facts in findings.values()) == 32
