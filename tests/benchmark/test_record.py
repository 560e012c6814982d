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
    assert json.loads((tmp_path / "environment.json").read_text())["windows"] == 5
