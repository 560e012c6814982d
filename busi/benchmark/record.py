"""The benchmark's figures as files: tables as CSV, goals, and a page that shows them all."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from busi.benchmark import precision, scaling, speed
from busi.config import ROOT, Study, StudyError, read
from busi.dataset import catalog

OUT = ROOT / "reports" / "benchmark"
PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "torch", "numpy", "snakemake")

TABLES = {
    "goals": "Goals",
    "speed": "Speed: training images a second, median and range of the windows, which take turns",
    "precision": "What bfloat16 changes: both baselines trained whole in either precision",
    "profile": "Where a training step's time goes: operations of this package",
    "study": "The smoke study, from nothing: where its seconds go",
    "scaling": "More workers: measured job times replayed on simulated ones",
    "plans": "More runs: building Snakemake's plan",
}
ASKS = (
    "`asks_of_peak` is how much of the speed of a large matrix product, in the same precision and run, a goal asks "
    "for. More than 1 cannot be had by doing the same operations faster."
)
LONGEST = 12
"""Kinds of operation shown for each network."""


def measure(
    parts: list[str], *, filters: list[int], windows: int, seconds: float, study: Study | None = None, out: Path = OUT
) -> None:
    """Measure ``parts`` and write them to ``out``; tables of other parts stay, goals and page are written anew.

    Args:
        parts: Any of `PARTS`.
        filters: Widths of the published network.
        windows: Of each contender.
        seconds: Of a window.
        study: Whose baselines the part "precision" trains.
        out: A folder, made if need be.

    Raises:
        StudyError: An unknown part; as the parts.
    """
    if unknown := set(parts) - PARTS.keys():
        raise StudyError(f"bench: no part {min(unknown)!r}; there are {', '.join(PARTS)}")
    out.mkdir(parents=True, exist_ok=True)
    for part in parts:
        for name, table in PARTS[part](filters=filters, windows=windows, seconds=seconds, study=study).items():
            table.to_csv(out / f"{name}.csv", index=False, float_format="%.6g")
        facts = environment() | ({"windows": windows, "window_seconds": seconds} if part == "speed" else {})
        everything = json.dumps(_environments(out) | {part: facts}, indent=2) + "\n"
        (out / "environment.json").write_text(everything, encoding="utf-8")
    goals(out).to_csv(out / "goals.csv", index=False, float_format="%.3f")
    (out / "README.md").write_text(page(out), encoding="utf-8")


def _speed(filters: list[int], windows: int, seconds: float, **_) -> dict[str, pd.DataFrame]:
    data_dir = phantoms()
    networks = speed.networks(filters)
    measured = [
        speed.measure(name, config, data_dir, windows=windows, seconds=seconds) for name, config in networks.items()
    ]
    profiles = [
        speed.operations(f"{name}, {precision}", config.model_copy(update={"precision": precision}), data_dir)
        for name, config in networks.items()
        for precision in (["float32", "mixed_bfloat16"] if speed.bfloat16() else ["float32"])
    ]
    return {"speed": pd.concat(measured), "profile": pd.concat(profiles)}


def _precision(study: Study | None, **_) -> dict[str, pd.DataFrame]:
    if study is None:
        raise StudyError(
            "bench precision: trains the baselines of a study, and none is given; name one, e.g. with "
            "-f params/laptop.yaml -p data_dir=/path/to/Dataset_BUSI_with_GT"
        )
    return {"precision": precision.compared(study)}


def _study(**_) -> dict[str, pd.DataFrame]:
    return {"study": pd.concat([scaling.smoke(cores) for cores in (1, 2)])}


def _scale(**_) -> dict[str, pd.DataFrame]:
    """Replayed are the runs gathered under reports/laptop: those in hand, and the largest plan's number of them."""
    measured = scaling.job_times(ROOT / "reports" / "laptop" / "results")
    counts = (len(measured), max(scaling.PLANNED))
    return {
        "scaling": pd.concat([scaling.replayed(measured, count) for count in counts]),
        "plans": scaling.planned(),
    }


PARTS = {"speed": _speed, "study": _study, "scale": _scale, "precision": _precision}


def phantoms() -> Path:
    """The folder of phantom images that the contenders train on, the smoke study's."""
    study = read(ROOT / "params" / "smoke.yaml")
    catalog.of(study)
    return study.data_path


def environment() -> dict:
    """What the figures were measured on: processor, cores, load, versions."""
    return {
        "processor": speed.processor().get("model name", platform.machine()),
        "bfloat16": speed.bfloat16(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    } | {name: found for name in PACKAGES if (found := _version(name))}


def _environments(out: Path) -> dict[str, dict]:
    """What each part was measured on."""
    file = out / "environment.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def goals(out: Path) -> pd.DataFrame:
    """The goals beside what the tables in ``out`` say, as `busi.benchmark.speed.goals`; those not measured left out."""
    found = [pd.DataFrame(columns=["goal", "measured", "reached", "asks_of_peak"])]
    if (out / "speed.csv").is_file():
        found.append(speed.goals(pd.read_csv(out / "speed.csv"), speed.bfloat16()))
    if (out / "study.csv").is_file():
        found.append(scaling.goals(pd.read_csv(out / "study.csv")))
    return pd.concat(found)


def page(out: Path) -> str:
    """The tables in ``out`` as Markdown."""
    parts = ["# Benchmark", "Written by `make bench`.", summed_up(goals(out))]
    for name, heading in TABLES.items():
        if (out / f"{name}.csv").is_file():
            table = pd.read_csv(out / f"{name}.csv")
            if name == "profile":
                table = table.groupby("network", sort=False).head(LONGEST)
            parts += [f"## {heading}", table.to_markdown(index=False, floatfmt=".4g").replace("nan", "")]
            if name == "goals":
                parts.append(ASKS)
            if name == "profile":
                parts.append(speed.ceiling(pd.read_csv(out / "profile.csv")))
    if (out / "plans.csv").is_file() and (out / "scaling.csv").is_file():
        parts.append(scaling.bottleneck(*(pd.read_csv(out / f"{name}.csv") for name in ("plans", "scaling"))))
    measured_on = [
        f"- {part}: " + "; ".join(f"{name} {value}" for name, value in facts.items())
        for part, facts in _environments(out).items()
    ]
    return "\n\n".join([*parts, "## What each part was measured on", "\n".join(measured_on)]) + "\n"


def summed_up(goals: pd.DataFrame) -> str:
    """How many of the goals are reached, and how many of the others cannot be, in a sentence or two."""
    others = goals[goals.reached != "yes"]
    text = f"{len(goals) - len(others)} of {len(goals)} goals are reached."
    if beyond := int((others.asks_of_peak > 1).sum()):
        text += f" Of the others, {beyond} ask{'s' * (beyond == 1)} for more than the speed of a matrix product."
    return text
