"""Tables on disk become a page without being measured again."""

import json

import pandas as pd

from benchmarks import record


def test_each_table_keeps_the_machine_that_it_was_measured_on(tmp_path, monkeypatch):
    table = pd.DataFrame({"runs": [121], "seconds": [1.87998412]})
    record.write_tables(tmp_path, {"plans": table}, windows=5)
    monkeypatch.setattr(record.os, "cpu_count", lambda: 1000)
    record.write_tables(tmp_path, {"study": table})
    environments = json.loads((tmp_path / "environment.json").read_text())
    assert environments["plans"]["cores"] != environments["study"]["cores"] == 1000
    assert environments["plans"]["windows"] == 5
    assert "windows" not in environments["study"]
    assert environments["plans"]["keras"].startswith("3.")
    assert (tmp_path / "plans.csv").read_text() == "runs,seconds\n121,1.87998\n"


def test_the_page_shows_the_tables_that_are_there(tmp_path):
    operations = [f"Kind{number}" for number in range(20)]
    record.write_tables(tmp_path, {"profile": pd.DataFrame({"network": "n", "operation": operations, "share": 0.05})})
    page = record.write_page(tmp_path).read_text()
    assert page.count("\n## ") == 1
    assert f"| n | Kind{record.SHOWN - 1} | 0.05 |" in page
    assert f"Kind{record.SHOWN} " not in page
    assert "Measured on: processor " in page


def test_a_speed_is_shown_relative_to_the_studys_way(tmp_path):
    speeds = {"network": ["a", "a", "b", "b"], "contender": ["study's way", "package"] * 2}
    table = pd.DataFrame(speeds | {"images_per_second": [2.0, 3.0, 10.0, 5.0]})
    record.write_tables(tmp_path, {"speed": table})
    page = record.write_page(tmp_path).read_text()
    assert "| a | package | 3 | 1.5 |" in page
    assert "| b | package | 5 | 0.5 |" in page


def test_markdown_rounds_numbers_and_leaves_missing_ones_blank():
    table = pd.DataFrame({"name": ["x", "y"], "n": [22321090, None], "share": [0.123456, float("nan")]})
    assert record.format_table(table.convert_dtypes()) == (
        "| name | n | share |\n| --- | --- | --- |\n| x | 22321090 | 0.1235 |\n| y |  |  |"
    )


def test_the_committed_page_is_written_from_the_committed_tables(repository, tmp_path):
    committed = repository / "reports" / "benchmark"
    for file in committed.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert record.write_page(tmp_path).read_bytes() == (committed / "README.md").read_bytes()
