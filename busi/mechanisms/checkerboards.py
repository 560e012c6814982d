"""Checkerboards: their strength in feature maps and outputs, by way of upsampling, before and after training.

A pattern that repeats every two pixels has its power at the Nyquist frequency of rows or columns. Doubling the size by
repetition or interpolation leaves no power there; a 2x2 transposed convolution writes four pixels with four kernels
that know nothing of each other (Odena, Dumoulin, Olah, "Deconvolution and Checkerboard Artifacts", Distill 2016).
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy.special import expit

from busi import display, results
from busi.config import Parameters, RunConfig
from busi.dataset.catalog import Catalog
from busi.dataset.parts import load_parts
from busi.mechanisms import section
from busi.study import find_group, find_trained, load_results, open_store

GROUP = "mechanisms/checkerboards"

SEEDS = (0, 1, 2)
"""Seeds of the initialisations measured before training."""

STAGES = {"up3": "first upsampling", "up0": "last upsampling", "logits": "output"}
"""Layers of `busi.model.unet.build`, in the order of computation."""

PROBED = 16
"""Number of validation images measured."""

LEAST = 1e-6
"""Smallest share that is drawn: repetition leaves rounding errors only, too small for a logarithmic axis."""


def measure(parameters: Parameters) -> pd.DataFrame:
    """Return the share of power at the Nyquist frequency on validation images.

    Returns:
        `upsampling`, `trained` (bool), `stage` (one of `STAGES`), `seed`, `nyquist` (as `nyquist_share`), `noise` (as
        `expected_of_noise`), `size` (pixels). Before training there is one row for each of `SEEDS`, after it one.
    """
    trained = load_results(parameters, GROUP)

    def make(catalog: Catalog) -> pd.DataFrame:
        store = open_store(parameters, catalog)
        rows = []
        for upsampling, (config,) in find_group(parameters, GROUP).variants.items():
            images = load_parts(config, catalog).validation.images[:PROBED]
            for seed in SEEDS:
                untrained = config.model_copy(update={"seed": seed})
                rows += _measure_stages(untrained, images, weights=None, upsampling=upsampling)
            run = find_trained(config, store)
            rows += _measure_stages(config, images, weights=run.weights, upsampling=upsampling)
        return pd.DataFrame(rows)

    return results.measure(parameters, GROUP, make, depends=trained.runs.key)


def _measure_stages(config: RunConfig, images: np.ndarray, *, weights, upsampling: str) -> list[dict]:
    # Importing Keras takes seconds, which readers of a finished report should not have to wait.
    import keras

    from busi.training import compile_network

    # In float32 whatever the run's precision: coarser rounding would add to the pattern.
    model = compile_network(config.model_copy(update={"precision": "float32"}))
    if weights:
        model.load_weights(weights)
    outputs = [model.get_layer(layer).output for layer in STAGES]
    stages = keras.Model(model.input, outputs)(images)
    rows = []
    for stage, output in zip(STAGES.values(), stages, strict=True):
        maps = keras.ops.convert_to_numpy(output)
        if stage == "output":
            # The probability of lesion; the second channel of the softmax repeats the first.
            maps = expit(maps[..., :1] - maps[..., 1:])
        _, height, width, _ = maps.shape
        row = {"upsampling": upsampling, "trained": weights is not None, "stage": stage, "seed": config.seed}
        row |= {"nyquist": nyquist_share(maps), "noise": expected_of_noise(height, width), "size": height}
        rows.append(row)
    return rows


def nyquist_share(maps: np.ndarray) -> float:
    """Compute the share of power at the Nyquist frequency of rows or columns, mean over maps.

    The constant part of a map does not count.

    Args:
        maps: float (n, h, w, c), h and w even; maps without any variation are left out.

    Returns:
        A number from 0 (no checkerboard) to 1 (checkerboards or stripes two pixels wide only); missing (nan) if no map
        varies. For white noise, see `expected_of_noise`.
    """
    _, height, width, _ = maps.shape
    # In double precision: the constant part is many times larger than the pattern.
    means = maps.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    power = np.abs(np.fft.fft2(maps - means, axes=(1, 2))) ** 2
    # The middle of the transform is the frequency of a pattern that repeats every two pixels.
    in_rows = power[:, height // 2, :, :].sum(axis=1)
    in_columns = power[:, :, width // 2, :].sum(axis=1)
    in_both = power[:, height // 2, width // 2, :]
    at_nyquist = in_rows + in_columns - in_both
    total = power.sum(axis=(1, 2))
    # Rounding errors of a flat map are no pattern.
    varies = total > 1e-12 * max(total.max(), 1e-30)
    if not varies.any():
        return np.nan
    return float((at_nyquist[varies] / total[varies]).mean())


def expected_of_noise(height: int, width: int) -> float:
    """Return the value of `nyquist_share` expected of white noise: the share of frequencies that count."""
    return (height + width - 1) / (height * width - 1)


def tabulate(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds of what `measure` returns.

    Returns:
        `upsampling`, `stage`, `size`, `noise`, `untrained` and `trained` (shares of power, 0 to 1).
    """
    index = ["upsampling", "stage", "size", "noise"]
    table = rows.pivot_table("nyquist", index, "trained", aggfunc="mean", sort=False)
    table = table.rename(columns={False: "untrained", True: "trained"}).rename_axis(columns=None)
    return table[["untrained", "trained"]].reset_index()


@display.style()
def draw(table: pd.DataFrame) -> Figure:
    """Draw the power at the Nyquist frequency by stage and way of upsampling, before and after training."""
    # White noise has the same share whatever the way of upsampling: one line for each stage.
    noise = table.drop_duplicates("stage")
    fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.4), sharey=True)
    for ax, column in zip(axes, ("untrained", "trained"), strict=True):
        shown = table.assign(share=table[column].clip(lower=LEAST))
        look = {"markers": ["o", "s", "D"], "linestyle": "none", "dodge": 0.3, "errorbar": None}
        sns.pointplot(shown, x="stage", y="share", hue="upsampling", ax=ax, **look)
        ax.plot(noise.stage, noise.noise, "_", color=display.GREY, markersize=44, label="white noise")
        labels = [stage.replace(" ", "\n") for stage in noise.stage]
        ax.set_xticks(range(len(labels)), labels)
        ax.set(yscale="log", ylim=(LEAST / 2, 1.5), title=column.capitalize(), xlabel="")
        ax.set_ylabel("Share of power at Nyquist")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=0.6)
    axes[0].get_legend().remove()
    return fig


def conclude(table: pd.DataFrame) -> str:
    """Return which way of upsampling makes checkerboards, and what that says about the reason given for claim 1."""
    # The feature maps show what a layer starts with, the output what is left of it in the answer.
    first = table[table.stage == "first upsampling"].set_index("upsampling").untrained
    output = table[table.stage == "output"].set_index("upsampling").trained
    if _has_most(first, "transposed") and _has_most(output, "transposed"):
        verdict = "claim 1's reason, that learned upsampling mitigates them, has it the wrong way round"
    elif _has_most(first, "transposed"):
        verdict = (
            "training takes the pattern that transposed convolution starts with out of the output again, at this size"
        )
    else:
        verdict = "claim 1's reason is not contradicted here"
    return (
        f"Before training the Nyquist frequency behind the first upsampling holds {_list_shares(first)} of the power; "
        f"after it the Nyquist frequency of the predicted map holds {_list_shares(output)} of the power: {verdict}."
    )


def _has_most(shares: pd.Series, upsampling: str) -> bool:
    return bool((shares.drop(upsampling) < shares[upsampling]).all())


def _list_shares(shares: pd.Series) -> str:
    return ", ".join(f"{share:.2%} ({upsampling})" for upsampling, share in shares.items())


@section.presents("checkerboards")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/mechanisms_checkerboards.csv``."""
    table = results.write_table(parameters, "mechanisms_checkerboards", tabulate(measure(parameters)))
    size = section.describe_size(find_group(parameters, GROUP).configs[0])
    return section.compose(
        draw(table),
        table,
        conclude(table),
        caption="Share of power at the Nyquist frequency of rows or columns; grey: the share that white noise has. "
        f"{size}; before training the mean over {len(SEEDS)} initialisations.",
        table_caption="Power at the Nyquist frequency by way of upsampling (all four steps) and stage.",
        digits=5,
    )
