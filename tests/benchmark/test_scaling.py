"""Replays worked out by hand, Snakemake's files read back, and a plan that Snakemake really builds."""

import pandas as pd
import pytest

from busi.benchmark import scaling
from busi.config import StudyError
from busi.mechanisms import experiments


def test_equal_jobs_are_done_in_whole_rounds():
    found = scaling.replayed([3600.0], jobs=10, workers=(1, 4, 10, 20))
    assert found.hours.tolist() == [10, 3, 1, 1]
    assert found.speedup.tolist() == pytest.approx([1, 10 / 3, 10, 10])
    assert found.efficiency.tolist() == pytest.approx([1, 10 / 12, 1, 0.5])


def test_the_longest_job_bounds_any_number_of_workers():
    seconds = [60.0] * 9 + [3600.0]
    found = scaling.replayed(seconds, jobs=1000, workers=(1000,))
    assert found.hours.tolist() == [1]


def test_job_times_are_those_of_the_gathered_runs(tmp_path):
    for name, seconds in {"published/b/fold0-seed0": 2.5, "heldout/a/fold1-seed1": 1.5}.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "metrics.json").write_text(f'{{"seconds": {seconds}, "images": 3}}')
    assert scaling.job_times(tmp_path) == [1.5, 2.5]


def test_seconds_of_a_rule_are_summed_over_its_jobs(tmp_path):
    head = "s\th:m:s\tmax_rss\n"
    for name, seconds in {"run/published/a/fold0-seed0-0123abcd": 2.5, "run/heldout/b": 4, "data": 1.25}.items():
        file = tmp_path / f"{name}.tsv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{head}{seconds}\t0:00:0{seconds}\t99.1\n")
    found = scaling.benchmarks(tmp_path)
    assert found.jobs.to_dict() == {"data": 1, "run": 2}
    assert found.seconds.to_dict() == {"data": 1.25, "run": 6.5}


def test_a_snakefile_without_benchmarks_is_said(tmp_path):
    with pytest.raises(StudyError, match=r"benchmark: no \*\.tsv"):
        scaling.benchmarks(tmp_path / "benchmark")


def test_goals_are_of_two_cores():
    study = pd.DataFrame(
        [(1, "whole study", 300), (1, "warm rerun", 3), (2, "whole study", 179.4), (2, "warm rerun", 15.0)],
        columns=["cores", "part", "seconds"],
    )
    found = scaling.goals(study)
    assert found.measured.tolist() == ["179 s", "15 s"]
    assert found.reached.tolist() == ["yes", "no"]


def test_python_keeps_what_it_compiles_as_on_any_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "Snakefile").write_text("import sys\nprint('kept:', not sys.dont_write_bytecode)\n")
    assert "kept: True" in scaling.snakemake(tmp_path, "--cores", "1").output


def test_snakemake_plans_as_many_runs_as_asked():
    """More seeds make more runs, none of them twice; nothing is run."""
    (plan,) = scaling.planned((100,)).to_dict("records")
    a_seed = sum(
        len(scaling.distinct(scaling.read(scaling.ROOT / "params" / "smoke.yaml"), protocol))
        for protocol in scaling.PROTOCOLS
    )
    seeds = list(range(-(-100 // a_seed)))
    asked = scaling.read(scaling.ROOT / "params" / "smoke.yaml", seeds=seeds)
    assert plan["runs"] == len(experiments.every_job(asked)) >= 100


def test_planning_and_training_break_even_where_a_worker_takes_as_long_as_a_plan():
    plans = pd.DataFrame({"runs": [100, 10_000], "seconds": [5.0, 100.0]})
    replay = scaling.replayed([600.0], jobs=10_000, workers=(1, 1000))
    # 10 ms a run, 600 s a job: 60,000 workers finish a run every 10 ms.
    assert scaling.bottleneck(plans, replay) == (
        "Planning 10000 runs takes 2 min, 10 ms a run; training 10000 runs of 10 min on average takes 1000 workers "
        "1 h 40 min. At that rate planning takes as long as training from 60,000 workers on."
    )
