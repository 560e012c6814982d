"""Replays worked out by hand, Snakemake's files read back, and a plan that Snakemake really builds."""

import pandas as pd
import pytest

from benchmarks import growth
from busi import config
from busi.config import StudyError
from busi.study import list_runs


def test_equal_runs_are_done_in_whole_rounds():
    table = growth.replay([3600.0], jobs=10, workers=(1, 4, 10, 20))
    assert table.hours.tolist() == [10, 3, 1, 1]
    assert table.speedup.tolist() == pytest.approx([1, 10 / 3, 10, 10])
    assert table.efficiency.tolist() == pytest.approx([1, 10 / 12, 1, 0.5])


def test_the_longest_run_bounds_any_number_of_workers():
    seconds = [60.0] * 9 + [3600.0]
    table = growth.replay(seconds, jobs=1000, workers=(1000,))
    assert table.hours.tolist() == [1]


def test_a_run_that_groups_share_counts_once(tmp_path):
    groups = {
        "published/loss": {"run": ["published/b", "published/a"], "seconds": [2.5, 1.5]},
        "heldout/loss": {"run": ["heldout/a"], "seconds": [7.0]},
        "published/data": {"run": ["published/b"], "seconds": [2.5]},
    }
    for name, runs in groups.items():
        (tmp_path / name).mkdir(parents=True)
        pd.DataFrame(runs).to_csv(tmp_path / name / "runs.csv", index=False)
    assert growth.read_run_seconds(tmp_path) == [7.0, 1.5, 2.5]


def test_a_report_without_results_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"results: no runs\.csv; run the study"):
        growth.read_run_seconds(tmp_path / "results")


def test_seconds_of_a_rule_are_summed_over_its_jobs(tmp_path):
    head = "s\th:m:s\tmax_rss\n"
    for name, seconds in {"run/published/a/fold0-seed0-0123abcd": 2.5, "run/heldout/b": 4, "data": 1.25}.items():
        file = tmp_path / f"{name}.tsv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{head}{seconds}\t0:00:0{seconds}\t99.1\n")
    assert growth.read_rule_times(tmp_path).to_dict("list") == {
        "part": ["data", "run"],
        "jobs": [1, 2],
        "seconds": [1.25, 6.5],
    }


def test_a_snakefile_without_benchmarks_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"benchmark: no \*\.tsv"):
        growth.read_rule_times(tmp_path / "benchmark")


def test_python_keeps_what_it_compiles_as_on_any_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "Snakefile").write_text("import sys\nprint('kept:', not sys.dont_write_bytecode)\n")
    assert "kept: True" in growth.run_snakemake(tmp_path, "--cores", "1").output


def test_a_failure_of_snakemake_ends_with_what_it_said(tmp_path):
    (tmp_path / "Snakefile").write_text("raise ValueError('a mistake of ours')\n")
    with pytest.raises(StudyError, match=r"(?s)--cores 1: exit code 1; its output ends:.*a mistake of ours"):
        growth.run_snakemake(tmp_path, "--cores", "1")


def test_snakemake_plans_as_many_runs_as_asked(repository):
    """More seeds make more runs, none of them twice; nothing is run."""
    (plan,) = growth.measure_plans((100,)).to_dict("records")
    planned = []
    seeds = 0
    while len(planned) < 100:
        seeds += 1
        planned = list_runs(config.read_profile("smoke", seeds=list(range(100, 100 + seeds))))
    assert plan["runs"] == len(planned)
