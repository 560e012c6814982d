"""Tables on disk become goals and a page, without being measured anew."""

import json

import pandas as pd

from busi.benchmark import record


def test_goals_and_page_come_from_the_tables_that_are_there(tmp_path):
    study = pd.DataFrame(
        [(2, "whole study", 1, 181.0), (2, "warm rerun", 1, 4.2)], columns=["cores", "part", "jobs", "seconds"]
    )
    study.to_csv(tmp_path / "study.csv", index=False)
    profile = pd.DataFrame({"network": "a network", "operation": [f"Kind{k}" for k in range(20)], "share": 0.05})
    profile.to_csv(tmp_path / "profile.csv", index=False)

    record.measure([], filters=[], windows=5, seconds=10, out=tmp_path)

    goals = pd.read_csv(tmp_path / "goals.csv")
    assert goals.reached.tolist() == ["no", "yes"]
    page = (tmp_path / "README.md").read_text()
    assert "181 s" in page
    assert f"Kind{record.LONGEST - 1} " in page
    assert f"Kind{record.LONGEST} " not in page


def test_goals_in_a_sentence():
    goals = pd.DataFrame({"reached": ["yes", "no", "no: no such processor"], "asks_of_peak": [1.2, 1.01, 0.99]})
    beyond = "1 of 3 goals are reached. Of the others, 1 asks for more than the speed of a matrix product."
    assert record.summed_up(goals) == beyond
    assert record.summed_up(goals[::2]) == "1 of 2 goals are reached."


def test_each_part_keeps_what_it_was_measured_on(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "PARTS", {part: lambda **_: {} for part in ("speed", "study")})
    record.measure(["speed"], filters=[], windows=5, seconds=10, out=tmp_path)
    monkeypatch.setattr(record.os, "cpu_count", lambda: 1000)
    record.measure(["study"], filters=[], windows=7, seconds=20, out=tmp_path)

    on = json.loads((tmp_path / "environment.json").read_text())
    assert (on["speed"]["windows"], on["speed"]["window_seconds"]) == (5, 10)
    assert on["speed"]["cores"] != on["study"]["cores"] == 1000
    assert "windows" not in on["study"]
    assert "- study: " in (tmp_path / "README.md").read_text()
