"""KLD and BCE: for one-hot targets and a softmax they are one loss. The published BCE, of logits, is another loss.

For two channels y and 1 - y with y in {0, 1}, and probabilities p and 1 - p:

    BCE = (-[y log p + (1 - y) log(1 - p)] - [(1 - y) log(1 - p) + y log p]) / 2 = -y log p - (1 - y) log(1 - p)
    KLD = y log(y / p) + (1 - y) log((1 - y) / (1 - p))                         = -y log p - (1 - y) log(1 - p)

This holds for all logits if neither is clipped. The published KLD is clipped and differs where p is below 1e-7. The
published BCE takes a sigmoid of each logit in place of p (`busi.model.losses.LogitCrossentropy`).
"""

from collections.abc import Sequence
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from busi import display, results
from busi.config import Parameters, RunConfig, read_sections, validate
from busi.dataset.arrays import Arrays, published_arrays, two_channels
from busi.dataset.catalog import Catalog
from busi.dataset.preprocessing import fit_scaling, scale
from busi.mechanisms import section
from busi.published import published_row
from busi.runs import TRAINING_VERSION

EAGER = 16
"""Largest number of steps for which tracing a graph takes longer than the steps themselves."""

TOGETHER = 0.01
"""Distance, as a share of the way travelled, below which two trajectories count as together."""

PRECISION = "float64"
"""Type of weights, losses and optimizer: in float32, rounding drives equal losses apart within some hundred steps."""

BCE, KLD, CLIPPED, LOGITS = "BCE of probabilities", "KLD", "KLD, clipped", "BCE of logits"

LOSSES = {
    BCE: {"loss": "bce", "bce": "probabilities"},
    KLD: {"loss": "kld", "clipped": False},
    CLIPPED: {"loss": "kld"},
    LOGITS: {"loss": "bce"},
}
"""Losses by name; the last two are those of the published rows."""

COMPARED = {"one-hot": (KLD, LOGITS), "soft, mirrored": (CLIPPED,)}
"""Kind of targets -> losses whose training on them is compared with that of `BCE` from the same weights."""


def measure(parameters: Parameters) -> pd.DataFrame:
    """Return how far the weights under each loss of `COMPARED` are from those under `BCE` on the same targets.

    Returns:
        As `compare_losses`, with the kind of `targets`.
    """
    config, steps = read_trajectory(parameters)

    def make(catalog: Catalog) -> pd.DataFrame:
        arrays = published_arrays(catalog, config)
        images = scale(arrays.images, "standardize", fit_scaling(arrays.images, "standardize"))
        # The catalog is sorted by class, and a batch should hold both classes.
        arrays = replace(arrays, images=images).shuffled(seed=0)[: config.batch_size * steps]
        tables = []
        for kind, losses in COMPARED.items():
            arm = replace(arrays, targets=make_targets(arrays.targets, kind))
            tables.append(compare_losses(config, losses, arm, steps).assign(targets=kind))
        return pd.concat(tables)

    # It trains networks of its own.
    depends = [config.model_dump_json(), str(steps), str(TRAINING_VERSION)]
    return results.measure(parameters, "mechanisms/identity", make, depends=depends)


def read_trajectory(parameters: Parameters) -> tuple[RunConfig, int]:
    """Return the configuration of the trajectories, except for the loss, and their number of steps."""
    sections = read_sections(parameters)
    trajectory = sections.trajectory
    own = {"second_channel": "complement", "batch_size": trajectory.batch_size}
    return validate(RunConfig, "trajectory", sections.sizes[trajectory.size] | own), trajectory.steps


def make_targets(targets: np.ndarray, kind: str) -> np.ndarray:
    """Make targets (n, o, o, 2) of ``kind`` "one-hot" or "soft, mirrored" from the lesion channel of ``targets``."""
    # The identity holds for y in {0, 1}; the published targets are soft and mirrored.
    lesion = targets[..., 0]
    if kind == "one-hot":
        return two_channels((lesion >= 0.5).astype(np.float32), "complement")
    return two_channels(lesion, "mirror")


def compare_losses(config: RunConfig, losses: Sequence[str], arrays: Arrays, steps: int) -> pd.DataFrame:
    """Train one network with `BCE` and one with each other loss, and compare their weights on the way.

    All start from the same weights and go through the arrays in order, again and again.

    Args:
        config: The run, except for the loss; its seed decides the initial weights.
        losses: Names in `LOSSES`.
        arrays: Scaled images, and targets.
        steps: Number of steps.

    Returns:
        At steps 1, 2, 4, ... and at the last one, for each loss: `step`, `loss`; `distance` of its weights from those
        under `BCE`, divided by the distance of the latter from the start.
    """
    batches = np.array_split(np.arange(len(arrays)), max(1, len(arrays) // config.batch_size))
    models = {loss: compile_network(config, loss, steps) for loss in (BCE, *losses)}
    start = _flatten_weights(models[BCE])
    rows = []
    for step in range(1, steps + 1):
        batch = arrays[batches[(step - 1) % len(batches)]]
        for model in models.values():
            model.train_on_batch(batch.images.astype(PRECISION), batch.targets.astype(PRECISION))
        # A comparison costs as much as a step, and powers of two are enough for a logarithmic axis.
        if step.bit_count() == 1 or step == steps:
            weights = _flatten_weights(models[BCE])
            travelled = np.linalg.norm(weights - start)
            for loss in losses:
                apart = np.linalg.norm(_flatten_weights(models[loss]) - weights)
                rows.append((step, loss, apart / travelled))
    return pd.DataFrame(rows, columns=["step", "loss", "distance"])


def compile_network(config: RunConfig, loss: str, steps: int):
    """Build the network of ``config`` with one of `LOSSES`, all of it in `PRECISION`, to be trained for ``steps``."""
    import keras

    from busi.model.losses import make_loss
    from busi.model.optimizers import make_optimizer
    from busi.model.unet import build

    config = config.model_copy(update=LOSSES[loss] | {"precision": PRECISION})
    keras.utils.set_random_seed(config.seed)
    before = keras.config.floatx(), keras.config.dtype_policy()
    try:
        # Layers follow the dtype policy; losses and optimizers follow the float type that they are made under.
        keras.config.set_floatx(PRECISION)
        keras.config.set_dtype_policy(PRECISION)
        body = build(config)
        # The network's own last layer is always float32. This one follows the policy: double precision.
        head = keras.layers.Conv2D(2, 1, name="head")
        model = keras.Model(body.input, head(body.get_layer("logits").input))
        eager = steps <= EAGER and keras.backend.backend() == "tensorflow"
        model.compile(make_optimizer(config), make_loss(config), run_eagerly=eager, jit_compile=False)
        # Otherwise it would be built in the first step, when the float type is float32 again.
        model.optimizer.build(model.trainable_variables)
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])
    return model


def _flatten_weights(model) -> np.ndarray:
    return np.concatenate([weight.ravel() for weight in model.get_weights()]).astype(np.float64)


def tabulate(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each trajectory of `measure`.

    Returns:
        `loss`, `targets`, `first` and `last` distance, `together` (as `count_together`), `steps`.
    """
    table = []
    for (targets, loss), way in rows.groupby(["targets", "loss"], sort=False):
        way = way.sort_values("step")
        first, last = way.distance.iloc[[0, -1]]
        table.append((loss, targets, first, last, count_together(way), way.step.max()))
    return pd.DataFrame(table, columns=["loss", "targets", "first", "last", "together", "steps"])


def count_together(way: pd.DataFrame) -> int:
    """Return the last step before a trajectory's distance first reaches `TOGETHER`, or 0."""
    # Once apart, two trajectories stay apart, even if they come close again by chance.
    parted = way.step[way.distance >= TOGETHER].min()
    # If they never part this is nan, and no step is >= nan.
    together = way.step[~(way.step >= parted)]
    return int(together.max()) if len(together) else 0


@display.style()
def draw(rows: pd.DataFrame) -> Figure:
    """Draw the distance from the trajectory of BCE of probabilities against the step, from the rows of `measure`."""
    names = rows.loss + ", " + rows.targets
    steps = sorted(rows.step.unique())
    fig, ax = plt.subplots(figsize=(display.WIDTH, 4.6))
    sns.lineplot(rows, x="step", y="distance", hue=names, style=names, markers=True, errorbar=None, ax=ax)
    ax.axhline(TOGETHER, color=display.GREY, linestyle=":")
    ax.set(xscale="log", yscale="log", xlabel="Step", ylabel="Distance / way travelled")
    ax.set_xticks(steps, steps)
    ax.minorticks_off()
    display.add_legend(fig, 1)
    ends = rows[rows.step == rows.step.max()]
    together = (ends.distance < TOGETHER).sum()
    display.add_title(fig, f"{together} of {len(ends)} trajectories stay with that of BCE of the probabilities")
    return fig


def conclude(table: pd.DataFrame, size: str) -> str:
    """Return whether the losses are one, and what that says about the published gap between KLD and BCE."""
    rows = table.set_index("loss")
    exact = rows.loc[KLD]
    published = rows.loc[CLIPPED]
    logits = rows.loc[LOGITS]
    bce = published_row("loss", "BCE")["loss"]
    gap = abs(bce - published_row("loss", "KLD")["loss"])
    twice = abs(bce - published_row("upsampling", "Upsampling2D")["loss"])
    verdict = ", so they are one loss" if exact.together == exact.steps else ""
    return (
        "On one-hot targets KLD and BCE of the probabilities stay together for "
        f"{exact.together} of {exact.steps} steps{verdict}. "
        f"Clipped and on soft, mirrored targets, as published, they stay together for {published.together} steps. "
        "The published BCE, of logits, is another loss: "
        f"after one step, its weights are {logits['first']:.0%} of the step's length away from those of BCE of the "
        "probabilities. "
        f"So Table 3, whose KLD and BCE are {gap:.4f} apart, compares a softmax with a sigmoid of each logit, "
        "not divergence with cross-entropy. "
        "One configuration is published twice, as far as the public code shows: the baseline and BCE, with losses "
        f"{twice:.4f} apart; the front page says how far its trainings lie apart here, and where KLD ends. "
        f"Size: {size}."
    )


@section.presents("identity")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/mechanisms_identity.csv``."""
    rows = measure(parameters)
    table = results.write_table(parameters, "mechanisms_identity", tabulate(rows))
    config, _ = read_trajectory(parameters)
    size = f"{config.image_size} pixels, {config.base_filters} filters, batches of {config.batch_size}"
    return section.compose(
        draw(rows),
        table,
        conclude(table, size),
        caption="Distance from the weights that BCE of the probabilities leads to, as a share of the way travelled. "
        f"Same start, same images in the same order. {size}, baseline optimizer on standardized images, in float64. "
        f"A distance of 0 is not drawn. Dotted: {TOGETHER:.0%}, the limit for being together.",
        table_caption="Distance of each trajectory from that of BCE of the probabilities after the first and the last "
        f"step, number of steps that they stay together (distance below {TOGETHER:.0%}), and number of all steps.",
        digits=4,
    )
