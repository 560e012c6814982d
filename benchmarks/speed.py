"""Training images per second: the study's way, this package, and PyTorch where it is installed."""

from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from benchmarks.race import Contender, race
from busi.config import RunConfig, StudyError

STUDY = "study's way"
FLOAT32 = "package"
BFLOAT16 = "package, bfloat16"
PEERS = {FLOAT32: "PyTorch", BFLOAT16: "PyTorch, bfloat16"}
PRODUCTS = {"float32": "matrix product", "bfloat16": "matrix product, bfloat16"}

AGREEMENT = 1e-4
"""Largest relative difference between the mean losses of the first steps of contenders in float32."""


def networks(filters: list[int]) -> dict[str, RunConfig]:
    """Return the networks to train: the published one at each width, and the held-out protocol's.

    All resize to a square, read one mask and preprocess nothing: the study's way can do no other, and a step costs the
    same.
    """
    chosen = {f"published, {width} filters": RunConfig(base_filters=width) for width in filters}
    studys_way = {"resize": "squash", "masks": "first", "preprocessing": "none", "shuffle": False}
    chosen["held-out, 16 filters"] = RunConfig(protocol="heldout", image_size=128, base_filters=16, **studys_way)
    return chosen


def bfloat16_instructions() -> list[str]:
    """Return the processor's bfloat16 instructions: "avx512_bf16" (vectors), "amx_bf16" (matrix units)."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(encoding="utf-8").split() if cpuinfo.is_file() else []
    return [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]


def list_contenders(config: RunConfig, data_dir: Path, weights: Path) -> list[Contender]:
    """List the contenders that train ``config``; the first one writes the weights that all start from."""
    options = {"config": config, "data_dir": data_dir, "weights": weights}
    halved = options | {"config": config.model_copy(update={"precision": "mixed_bfloat16"})}
    contenders = [
        Contender(FLOAT32, "benchmarks.package", options),
        Contender("package, one thread", "benchmarks.package", options, threads=1),
        Contender("package, two runs of one thread", "benchmarks.package", options, copies=2, threads=1),
        Contender(STUDY, "benchmarks.reference", options),
        Contender(PRODUCTS["float32"], "benchmarks.product", {"precision": "float32"}),
        Contender(PEERS[FLOAT32], "benchmarks.peer", options),
        Contender(BFLOAT16, "benchmarks.package", halved),
        Contender(PRODUCTS["bfloat16"], "benchmarks.product", {"precision": "bfloat16"}),
        Contender(PEERS[BFLOAT16], "benchmarks.peer", halved),
    ]
    if not bfloat16_instructions():
        contenders = [contender for contender in contenders if "bfloat16" not in contender.name]
    # PyTorch is no dependency of the study.
    if find_spec("torch") is None:
        contenders = [contender for contender in contenders if contender.module != "benchmarks.peer"]
    return contenders


def measure(network: str, config: RunConfig, data_dir: Path, *, windows: int, seconds: float) -> pd.DataFrame:
    """Measure the speed of every contender on one network.

    Returns:
        One row per contender: `network`, `contender`, `precision`, `images_per_second` (median over the windows),
        `low`, `high` (its range), `gflops` (10^9 floating-point operations per second), `peak_share` (of the matrix
        product in the same precision and race), `memory_mib` (peak), `memory_growth_mib` (of the peak after the first
        window), `loss` (mean of the first steps), `parameters`. A matrix product has no images, loss or parameters.

    Raises:
        StudyError: Contenders train something different from each other.
    """
    with TemporaryDirectory() as folder:
        contenders = list_contenders(config, data_dir, Path(folder) / "weights.npz")
        measured, facts = race(contenders, windows=windows, seconds=seconds)
    check_agreement(facts, network)
    table = tabulate(measured, facts)
    table.insert(0, "network", network)
    return table


def check_agreement(facts: pd.DataFrame, network: str) -> None:
    """Raise StudyError unless all contenders train the same network, and those in float32 with the same loss."""
    trained = facts[~facts.index.isin(PRODUCTS.values())]
    # bfloat16 rounds too coarsely for its loss to be compared.
    losses = trained.loss[~trained.index.str.contains("bfloat16")]
    difference = (losses - losses[FLOAT32]).abs().max()
    if difference > AGREEMENT * losses[FLOAT32]:
        raise StudyError(
            f"{network}: the mean loss of the first steps differs between contenders, {losses.to_dict()}; "
            "expected the same numbers: one of them trains something else"
        )
    if trained.parameters.nunique() > 1:
        counts = trained.parameters.to_dict()
        raise StudyError(f"{network}: contenders differ in their number of parameters, {counts}; expected equal ones")


def tabulate(windows: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    """Tabulate what `benchmarks.race.race` returns: the rows of `measure` without the network."""
    by_contender = windows.groupby("contender", sort=False)
    # The median, because another process may disturb a single window.
    table = by_contender.images_per_second.agg(images_per_second="median", low="min", high="max")
    table.insert(0, "precision", ["bfloat16" if "bfloat16" in name else "float32" for name in table.index])
    # A contender that reports no operations trains the same network as the package, which does.
    operations = facts.flops.fillna(facts.flops[FLOAT32])
    table["gflops"] = table.images_per_second * operations / 1e9
    is_product = table.index.isin(PRODUCTS.values())
    peaks = table[is_product].set_index("precision").gflops
    table["peak_share"] = table.gflops / table.precision.map(peaks)
    table["memory_mib"] = by_contender.memory_mib.last()
    table["memory_growth_mib"] = table.memory_mib - by_contender.memory_mib.first()
    table["loss"] = facts.loss
    table["parameters"] = facts.parameters.astype("Int64")
    # A product has been counted as an image only to find its operations per second.
    table.loc[is_product, ["images_per_second", "low", "high", "loss"]] = float("nan")
    return table.reset_index()


def add_speedup(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `measure` with a column `speedup`, relative to the study's way on the same network."""
    study = table[table.contender == STUDY].set_index("network").images_per_second
    return table.assign(speedup=table.images_per_second / table.network.map(study))
