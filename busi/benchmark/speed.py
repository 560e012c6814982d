"""Training images a second: the study's way, this package, and PyTorch where it is installed."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from busi.benchmark.race import Contender, race
from busi.config import RunConfig, StudyError

STUDY, FLOAT32, BFLOAT16 = "study's way", "package", "package, bfloat16"
ALONE, PAIR = "package, one thread", "package, two runs of one thread"
PEERS = {FLOAT32: "PyTorch", BFLOAT16: "PyTorch, bfloat16"}
PRODUCTS = {"float32": "matrix product", "bfloat16": "matrix product, bfloat16"}
AGREEMENT = 1e-4
"""By how much, relatively, the mean loss of the first steps may differ between contenders of the same arithmetic."""


def networks(filters: list[int]) -> dict[str, RunConfig]:
    """What is trained: the published network at each width, and the held-out protocol's.

    All resize to a square, read one mask and nothing more: the study's way knows no other, and a step costs the same.
    """
    published = {f"published, {each} filters": RunConfig(base_filters=each) for each in filters}
    study_knows = {"resize": "squash", "masks": "first", "preprocessing": "none", "shuffle": False}
    heldout = RunConfig(protocol="heldout", image_size=128, base_filters=16, **study_knows)
    return published | {"held-out, 16 filters": heldout}


def processor() -> dict[str, str]:
    """What Linux says of the first core: "model name", "flags" and more; empty where there is no ``/proc/cpuinfo``."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").partition("\n\n")[0].splitlines() if cpuinfo.is_file() else []
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def bfloat16() -> list[str]:
    """The processor's instructions for bfloat16, e.g. ["avx512_bf16"]; "amx_bf16" stands for matrix units."""
    flags = processor().get("flags", "").split()
    return [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]


def contenders(config: RunConfig, data_dir: Path, weights: Path) -> list[Contender]:
    """Who trains ``config``; the package at float32 comes first, because it writes the weights all start from."""
    options = {"config": config, "data_dir": data_dir, "weights": weights}
    taking_part = [
        Contender(FLOAT32, "busi.benchmark.package", options),
        Contender(ALONE, "busi.benchmark.package", options, threads=1),
        Contender(PAIR, "busi.benchmark.package", options, copies=2, threads=1),
        Contender(STUDY, "busi.benchmark.reference", options),
        Contender(PRODUCTS["float32"], "busi.benchmark.product", {"precision": "float32"}),
    ]
    if torch := find_spec("torch"):
        taking_part.append(Contender(PEERS[FLOAT32], "busi.benchmark.peer", options))
    if bfloat16():
        options = options | {"config": config.model_copy(update={"precision": "mixed_bfloat16"})}
        taking_part += [
            Contender(BFLOAT16, "busi.benchmark.package", options),
            Contender(PRODUCTS["bfloat16"], "busi.benchmark.product", {"precision": "bfloat16"}),
        ]
        if torch:
            taking_part.append(Contender(PEERS[BFLOAT16], "busi.benchmark.peer", options))
    return taking_part


def measure(network: str, config: RunConfig, data_dir: Path, *, windows: int, seconds: float) -> pd.DataFrame:
    """The speed table of one network.

    Returns:
        One row a contender: `network`, `contender`, `precision`, `images_per_second` (median over the windows), `low`,
        `high` (its range), `gflops` (10^9 floating-point operations a second), `peak_share` (of the matrix product in
        the same precision and run), `memory_mib` (peak), `memory_growth_mib` (of the peak after the first window),
        `loss` (mean of the first steps), `parameters`. A matrix product has no images, loss or parameters.

    Raises:
        StudyError: Two contenders of the same arithmetic differ in their loss, or any two in their parameters.
    """
    with TemporaryDirectory() as folder:
        taking_part = contenders(config, data_dir, Path(folder) / "weights.npz")
        ready = partial(agree, network=network)
        table = tabulated(*race(taking_part, windows=windows, seconds=seconds, ready=ready))
    return table.assign(network=network)[["network", *table.columns]]


def tabulated(windows: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    """The rows of `measure` but for the network, from what `busi.benchmark.race.race` returns."""
    of = windows.groupby("contender", sort=False)
    table = of.images_per_second.agg(images_per_second="median", low="min", high="max")
    table.insert(0, "precision", ["bfloat16" if "bfloat16" in name else "float32" for name in table.index])
    # Who counts no operations runs the same network as the package, which does.
    table["gflops"] = table.images_per_second * facts.flops.fillna(facts.flops[FLOAT32]) / 1e9
    product = table.index.isin(PRODUCTS.values())
    table["peak_share"] = table.gflops / table.precision.map(table[product].set_index("precision").gflops)
    table["memory_mib"] = of.memory_mib.last()
    table["memory_growth_mib"] = table.memory_mib - of.memory_mib.first()
    table["loss"] = facts.loss
    table["parameters"] = facts.parameters.astype("Int64")
    table.loc[product, ["images_per_second", "low", "high", "loss"]] = float("nan")
    return table.reset_index()


def agree(facts: pd.DataFrame, network: str) -> None:
    """Raise StudyError unless all contenders train the same network, and those in float32 to the same loss.

    Args:
        facts: As `busi.benchmark.race.race`.
        network: Its name.
    """
    trained = facts[~facts.index.isin(PRODUCTS.values())]
    losses = trained.loss[~trained.index.str.contains("bfloat16")]
    if (losses - losses[FLOAT32]).abs().max() > AGREEMENT * losses[FLOAT32]:
        raise StudyError(
            f"{network}: the mean loss of the first steps differs between contenders, {losses.to_dict()}; "
            "expected the same numbers: one of them trains something else"
        )
    if trained.parameters.nunique() > 1:
        raise StudyError(f"{network}: contenders differ in parameters, {trained.parameters.to_dict()}")


def operations(network: str, config: RunConfig, data_dir: Path) -> pd.DataFrame:
    """Where this package's training steps of one network spend their time, as `busi.benchmark.profile.operations`."""
    # A process of its own: this one must not start TensorFlow.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        table = pool.submit(_profiled, config, data_dir).result()
    return table.assign(network=network)[["network", *table.columns]]


def _profiled(config: RunConfig, data_dir: Path) -> pd.DataFrame:
    from busi.benchmark import profile

    return profile.operations(config, data_dir)


def ceiling(profile: pd.DataFrame) -> str:
    """How much faster a step could be if all but its convolutions took no time, in a sentence.

    Args:
        profile: Rows of `operations`, of any networks.
    """
    convolutions = profile[profile.operation.str.contains("Conv")].groupby("network", sort=False).share.sum()
    shares = ", ".join(f"{network} {share:.0%} ({1 / share:.2f} x)" for network, share in convolutions.items())
    return (
        "Convolutions are the library's, and take of a step's operations (in parentheses, how much faster it could be "
        f"if all the rest took no time): {shares}."
    )


def goals(speed: pd.DataFrame, flags: list[str]) -> pd.DataFrame:
    """What was aimed at beside what was measured.

    Args:
        speed: Rows of `measure`, of any networks.
        flags: As `bfloat16`.

    Returns:
        `goal`, `measured` (text), `reached` ("yes", "no", or why it cannot be said), `asks_of_peak` (how much of the
        speed of the matrix product, in the precision of the goal, it would take to reach it: more than 1 cannot be
        had without doing fewer operations; NaN where nobody took part whom it compares with).
    """
    rows = []
    for network, table in speed.groupby("network", sort=False):
        of = table.set_index("contender")
        rows += [
            _ratio(f"{network}: {mode} at least 1.5 x the study's way", of, ours, STUDY, 1.5)
            for mode, ours in (("package", FLOAT32), ("two runs of one thread, as a study trains,", PAIR))
        ]
        if network == "published, 64 filters":
            row = _ratio(f"{network}: bfloat16 at least 5 x the study's way", of, BFLOAT16, STUDY, 5)
            if "amx_bf16" not in flags and row["reached"] == "no":
                row["reached"] = "no: set for bf16 matrix units, which this processor lacks"
            rows += [row, *(_share(network, mode, of.peak_share) for mode in (FLOAT32, PAIR))]
        rows += [
            _ratio(f"{network}: {mode} ahead of PyTorch in the same precision", of, mode, peer, 1)
            for mode, peer in PEERS.items()
        ]
    return pd.DataFrame(rows)


def _ratio(goal: str, of: pd.DataFrame, ours: str, theirs: str, least: float) -> dict:
    absent = [name for name in (ours, theirs) if name not in of.index]
    if absent:
        return {"goal": goal, "measured": "", "reached": f"not measured: no {' and no '.join(absent)} on this machine"}
    ratio = of.images_per_second[ours] / of.images_per_second[theirs]
    asks = least * of.gflops[theirs] / of.gflops[PRODUCTS[of.precision[ours]]]
    return {"goal": goal, "measured": f"{ratio:.3f} x", "reached": _said(ratio >= least), "asks_of_peak": asks}


def _share(network: str, mode: str, shares: pd.Series) -> dict:
    least, measured = 0.8, shares[mode]
    goal = f"{network}: {mode} at least {least} of the float32 peak"
    return {"goal": goal, "measured": f"{measured:.3f}", "reached": _said(measured >= least), "asks_of_peak": least}


def _said(reached: bool) -> str:
    return "yes" if reached else "no"
