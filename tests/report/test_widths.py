"""The published rows at every width, from the results of several reports."""

import dataclasses

import pytest
from small_report import make_study_with_pages, read_parameters

from busi import results
from busi.published import distinct_rows
from busi.report import tables, widths
from busi.results import join_results

PLAN = {"image_size": 300, "epochs": 75}


@pytest.fixture
def laptop(tmp_path, monkeypatch):
    make_study_with_pages(tmp_path)
    monkeypatch.chdir(tmp_path)
    for family in ("upsampling", "optimization", "loss", "data"):
        (tmp_path / "notebooks" / f"1_{family}.ipynb").write_text("{}", encoding="utf-8")
    return read_parameters("laptop")


def write_report(parameters, data="f", **groups):
    """Write a report's runs by group ("/" as "_"), each with a key of its own, on data with a fingerprint."""
    for name, parts in groups.items():
        gathered = join_results(parts)
        keys = [f"{name}{number}" for number in range(len(gathered.runs))]
        keyed = dataclasses.replace(gathered, runs=gathered.runs.assign(key=keys))
        results.write_results(parameters, name.replace("_", "/"), keyed)
    head = f"# data {data} made by x\nimage_class,name\n"
    (parameters.results_path / "dataset.csv").write_text(head, encoding="utf-8")


def compare(parameters, filters=16):
    """Compare all widths, with the paper's numbers."""
    placed = distinct_rows().rename(columns=lambda name: f"published_{name}" if name in tables.METRICS else name)
    placed["reached_by"] = "none"
    return widths.compare_widths(widths.read_runs(parameters), filters, placed)


def list_cells(table):
    """List (filters, row, loss, runs) of the rows that have runs."""
    trained = table[table.n_runs > 0]
    return list(trained[["filters", "row", "loss", "n_runs"]].itertuples(index=False, name=None))


def test_rows_are_compared_at_all_widths_of_all_reports_on_the_same_data(laptop, make_run):
    quarter = PLAN | {"base_filters": 16, "precision": "mixed_bfloat16"}
    half = quarter | {"base_filters": 32}
    kld = [make_run("KLD", {"loss": 0.2 + seed / 10}, loss="kld", seed=seed, **quarter) for seed in (0, 1)]
    readings = [
        make_run("Upsampling2D, 32 filters", {"loss": 0.21}, **half),
        make_run("Upsampling2D, by class", {"loss": 0.9}, order="by-class", **quarter),
        make_run("KLD, Adam", {"loss": 0.9}, loss="kld", optimizer="adam", momentum=0.0, **quarter),
    ]
    write_report(laptop, published_loss=kld, mechanisms_readings=readings)
    baseline = [make_run("Upsampling2D", {"loss": 0.1877, "accuracy": 0.9251, "auc": 0.9728}, **PLAN)]
    paper = read_parameters("paper")
    write_report(paper, published_upsampling=baseline)
    write_report(read_parameters("laptop", report="other"), "g", published_loss=kld)

    table = compare(laptop)
    assert list_cells(table) == [
        (64, "Upsampling2D", 0.1877, 1),
        (32, "Upsampling2D", 0.21, 1),
        (16, "KLD", pytest.approx(0.25), 2),
    ]
    assert table.filters.tolist() == [64] * 9 + [32] * 9 + [16] * 9
    chosen = table[table.row == "Upsampling2D"].set_index("filters")
    assert chosen.verdict.tolist() == [tables.REPRODUCED, tables.FEW_RUNS, tables.NOT_RUN]
    assert chosen.precision.tolist() == ["float32", "mixed_bfloat16", ""]
    # Whichever report asks.
    assert list_cells(compare(paper, 64)) == list_cells(table)

    shown = widths.format_widths(table).set_index("row")
    assert list(shown) == ["published", "reached by", "64 filters", "32 filters", "16 filters"]
    assert shown.loc["Upsampling2D"].tolist() == [
        "0.1877 / 0.9251 / 0.9728",
        "none",
        "0.1877 / 0.9251 / 0.9728 (3 epochs, 1 plateau): reproduced",
        "0.2100 / 0.9000 / 0.9500 (3 epochs, 1 plateau): open: fewer than 3 runs",
        "not run at this width",
    ]


def test_one_configuration_published_twice_keeps_its_two_rows(laptop, make_run):
    """BCE is the baseline with seeds of its own: its runs are told by their row, not by their settings."""
    size = PLAN | {"base_filters": 16}
    write_report(
        laptop,
        published_upsampling=[make_run("Upsampling2D", {"loss": 0.22}, **size)],
        published_loss=[make_run("BCE", {"loss": 0.23}, seed=1000, **size)],
        published_optimization=[make_run("SGD + fixed LR", {"loss": 0.22}, **size)],
    )
    table = compare(laptop)
    assert list_cells(table) == [(16, "Upsampling2D", 0.22, 1), (16, "BCE", 0.23, 1)]


def test_runs_that_were_planned_shorter_do_not_mix_with_whole_ones(laptop, make_run):
    size = {"image_size": 300, "base_filters": 16}
    runs = [
        make_run("KLD", {"loss": loss}, loss="kld", epochs=epochs, **size) for loss, epochs in ((0.2, 75), (0.3, 5))
    ]
    write_report(laptop, published_loss=runs)
    assert list_cells(compare(laptop)) == [(16, "KLD", 0.2, 1)]


def test_without_any_run_every_row_is_listed_as_not_run(laptop):
    laptop.report_path.mkdir(parents=True)
    table = compare(laptop)
    assert (table.filters == 16).all() and (table.verdict == tables.NOT_RUN).all() and len(table) == 9
    assert set(widths.format_widths(table)["16 filters"]) == {tables.NOT_RUN}


def test_other_images_than_the_paper_s_have_no_published_column(laptop, make_run):
    write_report(laptop, published_loss=[make_run("KLD", {"loss": 0.2}, loss="kld", base_filters=16, **PLAN)])
    placed = distinct_rows()[["row"]].assign(published_loss=float("nan"))
    placed = placed.assign(published_accuracy=float("nan"), published_auc=float("nan"), reached_by="none")
    shown = widths.format_widths(widths.compare_widths(widths.read_runs(laptop), 16, placed))
    assert list(shown) == ["row", "16 filters"]
    assert shown.set_index("row")["16 filters"]["KLD"].endswith(f": {tables.NOT_COMPARABLE}")
