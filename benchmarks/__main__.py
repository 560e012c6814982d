"""Command line of the benchmarks: ``python -m benchmarks speed profile growth``."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from benchmarks import growth, precision, record, speed
from busi import config
from busi.config import StudyError
from busi.dataset import catalog

app = typer.Typer(add_completion=False)

Part = StrEnum("Part", ["speed", "profile", "growth", "precision"])


@app.command()
def measure(
    parts: Annotated[
        list[Part] | None,
        typer.Argument(metavar="PART...", help="What to measure; without any, the page is written from the tables."),
    ] = None,
    filters: Annotated[list[int], typer.Option(help="Widths of the published network.")] = [64, 16],  # noqa: B006
    windows: Annotated[int, typer.Option(min=1, help="Windows of time that each contender gets.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.01, help="Length of a window.")] = 10,
    profile: Annotated[str, typer.Option(help="Size of the runs that 'precision' trains.")] = "smoke",
    data_dir: Annotated[str | None, typer.Option(help="Images that 'precision' trains on.")] = None,
    runs_dir: Annotated[str, typer.Option(help="Store of the runs that 'precision' trains.")] = "runs",
) -> None:
    """Measure on a quiet machine and write tables and a page to reports/benchmark/.

    speed: training images per second. profile: operations that a training step spends its time in. growth: the smoke
    study, more workers, more runs. precision: what bfloat16 changes in a profile's baselines, an hour for laptop.
    """
    out = config.find_study_folder() / "reports" / "benchmark"
    for part in parts or []:
        facts = {"windows": windows, "window_seconds": seconds} if part == "speed" else {}
        if part == "growth":
            tables = growth.measure()
        elif part == "precision":
            given = {"runs_dir": runs_dir} | ({"data_dir": data_dir} if data_dir else {})
            tables = {"precision": precision.compare(config.read_profile(profile, **given))}
        elif part == "speed":
            tables = {"speed": measure_speed(filters, windows, seconds)}
        else:
            tables = {"profile": measure_profile(filters)}
        # Written part by part: an hour of measuring must not be lost to an error in a later part.
        record.write_tables(out, tables, **facts)
    print(record.write_page(out))


def measure_speed(filters: list[int], windows: int, seconds: float) -> pd.DataFrame:
    """Measure every contender on every network."""
    data_dir = draw_images()
    tables = []
    for name, network in speed.networks(filters).items():
        tables.append(speed.measure(name, network, data_dir, windows=windows, seconds=seconds))
    return pd.concat(tables)


def measure_profile(filters: list[int]) -> pd.DataFrame:
    """Profile training steps of every network in each precision."""
    # TensorFlow takes seconds to import, and nothing else here needs it in this process.
    from benchmarks import profile

    data_dir = draw_images()
    tables = []
    for name, network in speed.networks(filters).items():
        # A processor without bfloat16 instructions would only emulate them, slowly.
        for policy in ["float32", "mixed_bfloat16"] if speed.bfloat16_instructions() else ["float32"]:
            table = profile.measure(network.model_copy(update={"precision": policy}), data_dir)
            table.insert(0, "network", f"{name}, {policy}")
            tables.append(table)
    return pd.concat(tables)


def draw_images() -> Path:
    """Draw the smoke study's phantom images unless they are there, and return their folder."""
    parameters = config.read_profile("smoke")
    catalog.load_catalog(parameters)
    return parameters.data_path


if __name__ == "__main__":
    try:
        app()
    except StudyError as error:
        sys.exit(f"benchmarks: {error}")
