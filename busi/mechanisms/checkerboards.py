"""Checkerboards: their strength in feature maps and outputs, for each way of upsampling, before and after training.

A pattern that repeats every two pixels has its power at the Nyquist frequency of rows or columns. Doubling the size by
repetition or interpolation leaves next to no power there. A 2x2 transposed convolution writes each of four neighbouring
pixels with a kernel of its own, and nothing makes these agree (Odena, Dumoulin, Olah, "Deconvolution and Checkerboard
Artifacts", Distill 2016).
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.special import expit

from busi import display, results
from busi.config import Parameters
from busi.dataset.catalog import Catalog
from busi.dataset.parts import load_parts
from busi.mechanisms import section
from busi.runs import Run

GROUP = "mechanisms/checkerboards"

STAGES = {"up3": "first upsampling", "up0": "last upsampling", "logits": "output"}
"""Layers of `busi.model.unet.build`, in the order of computation."""

PROBED = 16
"""Number of validation images that are measured."""

LEAST = 1e-6
"""Smallest share that is drawn: repetition leaves only rounding errors, too small for a logarithmic axis."""


def measure_run(run: Run, catalog: Catalog) -> pd.DataFrame:
    """Measure a run's network before and after training, on validation images.

    Returns:
        `trained` (bool); `stage`, one of `STAGES`; `size` (pixels); `nyquist` (as `nyquist_share`).
    """
    import keras

    from busi.training import compile_network

    images = load_parts(run.config, catalog).validation.images[:PROBED]
    # In float32 whatever the run's precision: coarser rounding would add to the pattern.
    # No step is trained here; their number is for a decaying rate only.
    model = compile_network(run.config.model_copy(update={"precision": "float32"}), planned_steps=1)
    stages = keras.Model(model.input, [model.get_layer(layer).output for layer in STAGES])
    rows = []
    for trained in (False, True):
        if trained:
            model.load_weights(run.weights)
        for stage, output in zip(STAGES.values(), stages(images), strict=True):
            maps = keras.ops.convert_to_numpy(output)
            if stage == "output":
                # The probability of lesion alone; that of the background is its complement.
                maps = expit(maps[..., :1] - maps[..., 1:])
            rows.append((trained, stage, maps.shape[1], nyquist_share(maps)))
    return pd.DataFrame(rows, columns=["trained", "stage", "size", "nyquist"])


def nyquist_share(maps: np.ndarray) -> float:
    """Compute the share of power at the Nyquist frequency of rows or columns, mean over maps.

    The constant part of a map does not count.

    Args:
        maps: float (n, s, s, c), s even; maps without any variation are left out.

    Returns:
        A number from 0 (no checkerboard) to 1 (checkerboards or stripes two pixels wide only); missing (nan) if no map
        varies. For white noise, see `expected_of_noise`.
    """
    # In double precision: the constant part is many times larger than the pattern.
    means = maps.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    power = np.abs(np.fft.fft2(maps - means, axes=(1, 2))) ** 2
    # The middle of the transform is the frequency of a pattern that repeats every two pixels.
    middle = maps.shape[1] // 2
    total = power.sum(axis=(1, 2))
    slow = np.delete(power, middle, axis=1)
    slow = np.delete(slow, middle, axis=2).sum(axis=(1, 2))
    # Rounding errors of a flat map are no pattern.
    varies = total > 1e-12 * max(total.max(), 1e-30)
    if not varies.any():
        return np.nan
    return float(1 - (slow[varies] / total[varies]).mean())


def expected_of_noise(size: ArrayLike) -> ArrayLike:
    """Return the `nyquist_share` expected of white noise of ``size`` pixels: the share of frequencies that count."""
    return (2 * size - 1) / (size**2 - 1)


def tabulate(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean and range over the runs, from the tables of `measure_run` with `variant`.

    Returns:
        `upsampling`, `stage`, `trained` (bool), `size`; `share` of power (mean) with its lowest and highest as `low`
        and `high`; `noise` (as `expected_of_noise`).
    """
    rows = rows.rename(columns={"variant": "upsampling"})
    shares = rows.groupby(["upsampling", "stage", "trained", "size"], sort=False).nyquist
    table = shares.agg(share="mean", low="min", high="max").reset_index()
    return table.assign(noise=expected_of_noise(table["size"]))


@display.style()
def draw(table: pd.DataFrame) -> Figure:
    """Draw mean and range of the power at the Nyquist frequency by stage and way of upsampling."""
    # White noise has the same share for every way of upsampling: one line for each stage.
    stages = table.drop_duplicates("stage")
    middle = np.arange(len(stages))
    fig, axes = plt.subplots(2, 1, figsize=(display.WIDTH, 6.2), sharex=True)
    for ax, trained in zip(axes, (False, True), strict=True):
        ways = table[table.trained == trained].groupby("upsampling", sort=False)
        for shift, (way, part) in enumerate(ways, start=-1):
            share, low, high = part[["share", "low", "high"]].clip(lower=LEAST).to_numpy().T
            ax.errorbar(middle + shift / 8, share, [share - low, high - share], fmt="o", capsize=3, label=way)
        ax.hlines(stages.noise, middle - 0.25, middle + 0.25, color=display.GREY, label="white noise")
        ax.set_xticks(middle, stages.stage.str.replace(" ", "\n"))
        ax.set(yscale="log", ylim=(LEAST / 2, 1.5), title="Trained" if trained else "Untrained")
        ax.set_ylabel("Share of power at Nyquist")
    display.add_legend(fig)
    after = table[table.trained]
    at_output = after.stage == "output"
    most = after.share[~at_output].max()
    left = after.share[at_output].max()
    text = f"Trained feature maps keep up to {most:.0%} of their power at the Nyquist frequency, outputs {left:.2%}"
    display.add_title(fig, text)
    return fig


def find_ratios(rows: pd.DataFrame) -> pd.Series:
    """Return the share of transposed convolution divided by the highest of the others, for each fold and seed."""
    shares = rows.pivot(index=["fold", "seed"], columns="variant", values="nyquist")
    others = shares.drop(columns="transposed").max(axis=1)
    return shares.transposed / others


def conclude(rows: pd.DataFrame, size: str) -> str:
    """Return which way of upsampling makes checkerboards, and what that says about the reason given for claim 1.

    Args:
        rows: Tables of `measure_run`, with `variant`, `fold` and `seed`.
        size: Size of the runs, in words.
    """
    # The feature maps show what a layer starts with, the output what is left of it in the answer.
    first = rows[(rows.stage == "first upsampling") & ~rows.trained]
    output = rows[(rows.stage == "output") & rows.trained]
    noise = expected_of_noise(output["size"].iloc[0])
    ratios = find_ratios(output)
    higher = (ratios > 1).sum()
    against_claim = ", where claim 1 says that it mitigates it" if higher == len(ratios) else ""
    below_noise = "; all trained outputs have less of it than noise" if output.nyquist.max() < noise else ""
    return (
        "Behind the first upsampling of untrained networks, the Nyquist frequency holds "
        f"{_compare_shares(first)} of the power; "
        "repetition and interpolation leave next to none there by construction. "
        f"In the outputs of trained networks it holds {_compare_shares(output)}. "
        "In the output, transposed convolution has more of the pattern than all others in "
        f"{higher} of {display.count(len(ratios), 'training')}{against_claim}{below_noise}. "
        "The networks differ in all four upsampling steps; the paper's differ in the first alone, which is not "
        f"measured here. Size: {size}, {PROBED} validation images a network."
    )


def _compare_shares(rows: pd.DataFrame) -> str:
    """Return the mean share of transposed convolution, the highest of the other ways, and that of white noise."""
    shares = rows.groupby("variant").nyquist.mean()
    others = shares.drop("transposed").max()
    noise = expected_of_noise(rows["size"].iloc[0])
    return f"{100 * shares['transposed']:.3g}% (transposed; the others at most {100 * others:.2g}%; noise {noise:.1%})"


@section.presents("checkerboards")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/mechanisms_checkerboards.csv``."""
    # Networks are measured once; after that, the table is read from the report.
    trained, rows = section.measure_runs(parameters, GROUP, GROUP, measure_run)
    table = results.write_table(parameters, "mechanisms_checkerboards", tabulate(rows))
    size = section.describe_runs(trained)
    return section.compose(
        draw(table),
        table,
        conclude(rows, size),
        caption="Share of power at the Nyquist frequency of rows or columns: mean, lowest and highest of the networks; "
        f"grey: the share that white noise has. Shares below {LEAST:g} are drawn there. {size}.",
        table_caption="Share of power at the Nyquist frequency by way of upsampling (all four steps) and stage: mean, "
        "lowest and highest of the networks. Size: height and width of the map in pixels; noise: the share that white "
        "noise has in a map of this size.",
        digits=5,
    )
