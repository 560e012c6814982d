"""Section 6: how much checkerboard each way of upsampling makes, before and after training.

A pattern that repeats every two pixels has its power at the Nyquist frequency of rows or of columns. Doubling by
repetition or interpolation leaves none there; a 2x2 transposed convolution writes four pixels with four kernels that
know nothing of each other (Odena, Dumoulin, Olah, "Deconvolution and Checkerboard Artifacts", Distill 2016).
"""

import numpy as np
import pandas as pd

from busi.config import RunConfig, Study
from busi.dataset.catalog import Catalog
from busi.mechanisms import experiments
from busi.runs import BEST

SEEDS = (0, 1, 2)
"""Initialisations that are looked at before training."""

STAGES = {"up3": "first upsampling", "up0": "last upsampling", "probability": "output"}
"""Layers of `busi.model.unet.build`, in the order of computation."""

PROBED = 16
"""Validation images."""


def nyquist(maps: np.ndarray) -> float:
    """Share of power at the Nyquist frequency of rows or columns, mean over maps; the mean of a map does not count.

    Args:
        maps: float (n, h, w, c), h and w even; maps without any variation are left out.

    Returns:
        0 (none) to 1 (a checkerboard, or stripes two pixels wide a pair); missing where no map varies. White noise has
        `of_noise`.
    """
    _, height, width, _ = maps.shape
    centred = maps.astype(np.float64) - maps.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    power = np.abs(np.fft.fft2(centred, axes=(1, 2))) ** 2
    row, column = power[:, height // 2, :, :].sum(axis=1), power[:, :, width // 2, :].sum(axis=1)
    there = row + column - power[:, height // 2, width // 2, :]
    total = power.sum(axis=(1, 2))
    varies = total > 1e-12 * max(total.max(), 1e-30)
    return float((there[varies] / total[varies]).mean()) if varies.any() and total.max() > 0 else np.nan


def of_noise(height: int, width: int) -> float:
    """What `nyquist` expects of white noise: the share of frequencies that count."""
    return (height + width - 1) / (height * width - 1)


def measured(study: Study) -> pd.DataFrame | None:
    """By way of upsampling, stage and whether trained: `nyquist` on validation images.

    Returns:
        `upsampling`, `stage` (of `STAGES`), `trained`, `seed`, `nyquist`, `noise` (as `of_noise`), `size` (pixels).
        Before training one row for each of `SEEDS`; after it one, where the weights are at hand.
    """
    runs = experiments.ensure(study, "checkerboards")
    configs = experiments.configs(study, "checkerboards")
    where = experiments.store(study, "checkerboards")

    def make(data: Catalog) -> pd.DataFrame:
        from busi import protocols

        rows = []
        for label, (config, *_) in configs.items():
            images = protocols.of(config, data).validation.images[:PROBED]
            for seed in SEEDS:
                drawn = config.model_copy(update={"seed": seed})
                rows += _of(drawn, None, images, {"upsampling": label, "trained": False})
            for run in runs[label]:
                if file := experiments.weights(run, data, where, BEST):
                    rows += _of(run.config, file, images, {"upsampling": label, "trained": True})
        return pd.DataFrame(rows)

    return experiments.gathered(study, "checkerboards", make, *experiments.flat(runs))


def _of(config: RunConfig, file, images: np.ndarray, head: dict) -> list[dict]:
    import keras

    from busi import training

    model = training.compiled(config.model_copy(update={"precision": "float32"}))
    if file:
        model.load_weights(file)
    stages = keras.Model(model.input, [model.get_layer(layer).output for layer in STAGES])(images)
    rows = []
    for stage, maps in zip(STAGES.values(), stages, strict=True):
        found = np.asarray(keras.ops.convert_to_numpy(maps))
        found = found[..., :1] if stage == "output" else found  # both channels of a softmax are one
        _, height, width, _ = found.shape
        noise = {"noise": of_noise(height, width), "size": height}
        rows.append(head | {"stage": stage, "seed": config.seed, "nyquist": nyquist(found)} | noise)
    return rows


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds: `upsampling`, `stage`, `size`, `noise`, `untrained`, `trained` (missing where not run)."""
    found = rows.pivot_table(
        "nyquist", ["upsampling", "stage", "size", "noise"], "trained", aggfunc="mean", sort=False
    ).rename(columns={False: "untrained", True: "trained"})
    return found.reindex(columns=["untrained", "trained"]).rename_axis(columns=None).reset_index()


def conclusion(table: pd.DataFrame | None) -> str:
    """Which way of upsampling makes checkerboards, and what that says of claim 1's reason.

    Args:
        table: As `table`.
    """
    if table is None:
        return experiments.NOT_RUN
    rows = table.set_index(["upsampling", "stage"])
    ways = list(dict.fromkeys(table.upsampling))
    parts = [_shares(rows, ways, "first upsampling", "untrained", "Before training")]
    output = rows.xs("output", level="stage")
    if "trained" in output and output.trained.notna().all():
        parts.append(_shares(rows, ways, "output", "trained", "after it"))
        states = [("untrained", "first upsampling"), ("trained", "output")]
    else:
        parts.append("trained networks have not been run yet")
        states = [("untrained", "first upsampling")]
    others = [way for way in ways if way != "transposed"]
    most = [all(rows.loc[("transposed", s), t] > rows.loc[(way, s), t] for way in others) for t, s in states]
    if all(most):
        verdict = "claim 1's reason, that learned upsampling mitigates them, has it the wrong way round"
    elif most[0]:
        verdict = (
            "training takes the pattern that transposed convolution starts with out of the output again, at this size"
        )
    else:
        verdict = "claim 1's reason is not contradicted here"
    return f"{'; '.join(parts)}: {verdict}."


def _shares(rows: pd.DataFrame, ways: list[str], stage: str, column: str, when: str) -> str:
    shares = ", ".join(f"{rows.loc[(way, stage), column]:.2%} ({way})" for way in ways)
    place = "behind the first upsampling" if stage == "first upsampling" else "of the predicted map"
    return f"{when} the Nyquist frequency {place} holds {shares} of the power"
