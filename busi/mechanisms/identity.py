"""KLD is BCE: of one-hot targets and a softmax the two are one loss. The published BCE, of logits, is another one.

For two channels y and 1 - y with y in {0, 1}, and probabilities p and 1 - p:

    BCE = (-[y log p + (1 - y) log(1 - p)] - [(1 - y) log(1 - p) + y log p]) / 2 = -y log p - (1 - y) log(1 - p)
    KLD = y log(y / p) + (1 - y) log((1 - y) / (1 - p))                         = -y log p - (1 - y) log(1 - p)

Keras on TensorFlow computes BCE after a softmax from sigmoids of the softmax's logits
(`busi.model.losses.LogitCrossentropy`).
"""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from busi import display, results
from busi.config import Parameters, RunConfig, Trajectory, read_sections, validate
from busi.dataset.arrays import Arrays, published_arrays, two_channels
from busi.dataset.catalog import Catalog
from busi.dataset.preprocessing import fit_scaling, scale
from busi.mechanisms import section
from busi.published import published_row
from busi.results import NotMeasured, Results
from busi.study import load_results

EAGER = 16
"""Number of steps up to which tracing a graph takes longer than the steps themselves."""

TOGETHER = 0.01
"""Distance, as a share of the way travelled, below which two trajectories are together."""

BCE, KLD, LOGITS = "BCE of probabilities", "KLD", "BCE of logits"

LOSSES = {BCE: {"loss": "bce", "bce": "probabilities"}, KLD: {"loss": "kld"}, LOGITS: {"loss": "bce"}}

ARMS = (
    ("float64", "one-hot", (KLD,)),
    ("float32", "one-hot", (KLD, LOGITS)),
    ("float32", "soft, mirrored", (KLD,)),
)
"""Precision, targets, and losses that are compared with `BCE`, starting from the same weights."""

Way = dict[int, tuple[np.ndarray, float]]
"""Step -> all weights as one float64 vector, and the loss in that step (nan at step 0)."""


def measure(parameters: Parameters) -> pd.DataFrame:
    """Return trajectories from the same start, compared with that of `BCE` under the same precision and targets.

    Returns:
        As `compare_ways` for each loss, with `precision`, `targets` and `loss`.
    """
    trajectory, config = _read_trajectory(parameters)

    def make(catalog: Catalog) -> pd.DataFrame:
        arrays = _load_standardized(catalog, config, count=trajectory.batch_size * trajectory.steps)
        tables = []
        # Images and their order are the same for all: only what an arm names can make a difference.
        for precision, targets, losses in ARMS:
            arm = replace(arrays, targets=make_targets(arrays.targets, targets))
            ways = {}
            for loss in (BCE, *losses):
                variant = config.model_copy(update=LOSSES[loss])
                ways[loss] = follow(variant, precision, arm, trajectory.batch_size, trajectory.steps)
            for loss in losses:
                table = compare_ways(ways[BCE], ways[loss])
                tables.append(table.assign(precision=precision, targets=targets, loss=loss))
        return pd.concat(tables)

    depends = [trajectory.model_dump_json(), json.dumps(config.model_dump())]
    return results.measure(parameters, "mechanisms/identity", make, depends=depends)


def _read_trajectory(parameters: Parameters) -> tuple[Trajectory, RunConfig]:
    sections = read_sections(parameters)
    size = sections.sizes[sections.trajectory.size]
    return sections.trajectory, validate(RunConfig, "trajectory", size | {"second_channel": "complement"})


def _load_standardized(catalog: Catalog, config: RunConfig, count: int) -> Arrays:
    arrays = published_arrays(catalog, config)
    images = scale(arrays.images, "standardize", fit_scaling(arrays.images, "standardize"))
    # Images are sorted by class, and a batch should hold both.
    return replace(arrays, images=images).shuffled(seed=0)[:count]


def make_targets(targets: np.ndarray, kind: str) -> np.ndarray:
    """Make targets (n, o, o, 2) of ``kind`` "one-hot" or "soft, mirrored" from the lesion channel of ``targets``."""
    # The identity holds for y in {0, 1}, which the published, soft and mirrored targets are not.
    lesion = targets[..., 0]
    if kind == "one-hot":
        return two_channels((lesion >= 0.5).astype(np.float32), "complement")
    return two_channels(lesion, "mirror")


def follow(config: RunConfig, precision: str, arrays: Arrays, batch_size: int, steps: int) -> Way:
    """Train a network for some steps, going through the arrays in order, again and again.

    Args:
        config: The run; its seed decides the initial weights.
        precision: "float32" or "float64", of everything.
        arrays: Scaled images, and targets.
        batch_size: Images in a step.
        steps: Number of steps.

    Returns:
        Weights and loss at steps 0, 1, 2, 4, ... and at the last one.
    """
    batches = np.array_split(np.arange(len(arrays)), max(1, len(arrays) // batch_size))
    with set_precision(precision):
        model = _compile_network(config, precision, eager=steps <= EAGER)
        way = {0: (_flatten_weights(model), np.nan)}
        for step, rows in zip(range(1, steps + 1), itertools.cycle(batches), strict=False):
            batch = arrays[rows]
            # Otherwise the loss would be a mean over all steps so far.
            model.reset_metrics()
            loss = model.train_on_batch(batch.images.astype(precision), batch.targets.astype(precision))
            # Enough for logarithmic axes; all steps would be gigabytes of weights.
            is_power_of_two = step & (step - 1) == 0
            if is_power_of_two or step == steps:
                way[step] = (_flatten_weights(model), float(np.ravel(loss)[0]))
    return way


@contextmanager
def set_precision(precision: str) -> Iterator[None]:
    """Set the precision of all layers, losses and optimizers that Keras makes inside."""
    import keras

    # Layers follow the policy, losses and optimizers the float type.
    floatx = keras.config.floatx()
    policy = keras.config.dtype_policy()
    keras.config.set_floatx(precision)
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def _compile_network(config: RunConfig, precision: str, *, eager: bool):
    # Importing Keras takes seconds, which readers of a finished report should not have to wait.
    import keras

    from busi.model.losses import make_loss
    from busi.model.optimizers import make_optimizer
    from busi.model.unet import build

    keras.utils.set_random_seed(config.seed)
    body = build(config.image_size, config.base_filters, config.upsampling, precision, padding=config.padding)
    # The network's own last layer is float32, whatever the precision of the rest.
    head = keras.layers.Conv2D(2, 1, dtype=precision, name="head")
    model = keras.Model(body.input, head(body.get_layer("logits").input))
    eager = eager and keras.backend.backend() == "tensorflow"
    model.compile(make_optimizer(config), make_loss(config), run_eagerly=eager, jit_compile=False)
    return model


def _flatten_weights(model) -> np.ndarray:
    return np.concatenate([weight.ravel() for weight in model.get_weights()]).astype(np.float64)


def compare_ways(reference: Way, way: Way) -> pd.DataFrame:
    """Compare the trajectories of two trainings.

    Returns:
        `step`, `distance` (as `distance`), `value` (loss of ``way`` in that step), `reference` (loss of ``reference``).
    """
    # Both start from the same weights.
    start, _ = reference[0]
    rows = []
    for step, (weights, value) in way.items():
        # At the start there is no way travelled to measure the distance by.
        if step == 0:
            continue
        reference_weights, reference_value = reference[step]
        rows.append((step, distance(reference_weights, weights, start), value, reference_value))
    return pd.DataFrame(rows, columns=["step", "distance", "value", "reference"])


def distance(a: np.ndarray, b: np.ndarray, start: np.ndarray) -> float:
    """Compute the distance of b from a, as a share of the distance of a from ``start``; all are weights, (n,)."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(a - start))


def tabulate(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each trajectory of `measure`.

    Returns:
        `loss`, `precision`, `targets`, `first` and `last` distance, `together` (as `count_together`), `steps`.
    """
    table = []
    for (precision, targets, loss), way in rows.groupby(["precision", "targets", "loss"], sort=False):
        way = way.sort_values("step")
        row = {"loss": loss, "precision": precision, "targets": targets}
        row |= {"first": way.distance.iloc[0], "last": way.distance.iloc[-1]}
        table.append(row | {"together": count_together(way), "steps": way.step.iloc[-1]})
    return pd.DataFrame(table)


def count_together(way: pd.DataFrame) -> int:
    """Return the last step up to which a trajectory's distance stays below `TOGETHER`, or 0; ``way`` sorted by step."""
    # Once apart, two trajectories stay apart, even if they come close again by chance.
    has_parted = (way.distance >= TOGETHER).cummax()
    together = way.step[~has_parted]
    return int(together.iloc[-1]) if len(together) else 0


def tabulate_seeds(trained: Results) -> pd.DataFrame:
    """Return one row for each run: `loss`, `seed`, `epochs`; `end_loss` and `accuracy` of the last epoch.

    Raises:
        NotMeasured: No loss has been trained from several seeds yet.
    """
    if not trained.runs.variant.duplicated().any():
        raise NotMeasured("seeds: none repeated yet; run the study with its data and train_missing: true")
    columns = {"variant": "loss", "seed": "seed", "planned_epochs": "epochs"}
    columns |= {"training_loss": "end_loss", "training_accuracy": "accuracy"}
    return trained.runs[list(columns)].rename(columns=columns)


@display.style()
def draw(rows: pd.DataFrame) -> Figure:
    """Draw the distance from the trajectory of BCE of probabilities against the step, from the rows of `measure`."""
    names = rows.loss + ", " + rows.precision + ", " + rows.targets
    steps = sorted(rows.step.unique())
    fig, ax = plt.subplots(figsize=(7.6, 3.8))
    sns.lineplot(rows, x="step", y="distance", hue=names, style=names, markers=True, errorbar=None, ax=ax)
    ax.axhline(TOGETHER, **display.FLOOR_LINE)
    ax.set(xscale="log", yscale="log", xlabel="Step", ylabel="Distance / way travelled")
    ax.set_xticks(steps, steps)
    ax.minorticks_off()
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return fig


def conclude(table: pd.DataFrame, seeds: pd.DataFrame) -> str:
    """Return whether the losses are one, and how much a seed changes, from both tables."""
    one_hot = table[table.targets == "one-hot"].set_index(["loss", "precision"])
    exact = one_hot.loc[(KLD, "float64")]
    usual = one_hot.loc[(KLD, "float32")]
    logits = one_hot.loc[(LOGITS, "float32")]
    # The spread of a loss with a single seed is 0, and so does not count.
    by_loss = seeds.groupby("loss")[["end_loss", "accuracy"]]
    spread = (by_loss.max() - by_loss.min()).max()
    bce, kld = published_row("loss", "BCE"), published_row("loss", "KLD")
    loss_gap = abs(bce["loss"] - kld["loss"])
    accuracy_gap = abs(bce["accuracy"] - kld["accuracy"])
    epochs = section.count_epochs(seeds.epochs.max())
    return (
        f"On one-hot targets KLD and BCE of the probabilities stay together for {exact.together} of {exact.steps} "
        f"steps in float64 and {usual.together} in float32 (distance after the first {exact['first']:.0e} and "
        f"{usual['first']:.0e} of the step), so they are one loss; what Keras trains as BCE, of logits, is another: "
        f"its first step differs by {logits['first']:.0%}; a change of seed alone moves the training loss by up to "
        f"{spread.end_loss:.4f} and the accuracy by {spread.accuracy:.4f} after {epochs}, against Table 3's gaps of "
        f"{loss_gap:.4f} and {accuracy_gap:.4f}."
    )


@section.presents("identity")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/mechanisms_identity.csv`` and that of the seeds."""
    seeds = tabulate_seeds(load_results(parameters, "mechanisms/identity"))
    rows = measure(parameters)
    table = results.write_table(parameters, "mechanisms_identity", tabulate(rows))
    results.write_table(parameters, "mechanisms_identity_seeds", seeds)
    trajectory, config = _read_trajectory(parameters)
    return section.compose(
        draw(rows),
        table,
        conclude(table, seeds),
        caption="Distance from the weights that BCE of the probabilities leads to, as a share of the way travelled; "
        f"same start, same images in the same order. {config.image_size} pixels, {config.base_filters} filters, "
        f"batches of {trajectory.batch_size}, baseline optimizer on standardized images.",
        table_caption="Number of steps that each trajectory stays together with that of BCE of the probabilities "
        f"(distance below {TOGETHER:.0%}).",
        digits={"first": 8, "last": 6},
    )
