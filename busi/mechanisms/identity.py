"""KLD is BCE: of one-hot targets and a softmax the two are one loss. The published BCE, of logits, is another one.

For two channels y and 1 - y with y in {0, 1}, and probabilities p and 1 - p:

    BCE = (-[y log p + (1 - y) log(1 - p)] - [(1 - y) log(1 - p) + y log p]) / 2 = -y log p - (1 - y) log(1 - p)
    KLD = y log(y / p) + (1 - y) log((1 - y) / (1 - p))                         = -y log p - (1 - y) log(1 - p)

It holds for all logits if neither is clipped. The published KLD is clipped: it departs where p is below 1e-7. The
published BCE takes a sigmoid of each logit in place of p (`busi.model.losses.LogitCrossentropy`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from busi.results import NotMeasured, Results
from busi.study import load_results

EAGER = 16
"""Number of steps up to which tracing a graph takes longer than the steps themselves."""

TOGETHER = 0.01
"""Distance, as a share of the way travelled, below which two trajectories are together."""

BCE, KLD, CLIPPED, LOGITS = "BCE of probabilities", "KLD", "KLD, clipped", "BCE of logits"

LOSSES = {
    BCE: {"loss": "bce", "bce": "probabilities"},
    KLD: {"loss": "kld", "clipped": False},
    CLIPPED: {"loss": "kld"},
    LOGITS: {"loss": "bce"},
}
"""Losses by name; the last two are those of the published rows."""

ARMS = (
    ("float64", "one-hot", (KLD,)),
    ("float32", "one-hot", (KLD, LOGITS)),
    ("float32", "soft, mirrored", (CLIPPED,)),
)
"""Precision, targets, and losses that are compared with `BCE`, starting from the same weights."""


def measure(parameters: Parameters) -> pd.DataFrame:
    """Return trajectories from the same start, compared with that of `BCE` under the same precision and targets.

    Returns:
        As `compare_losses`, with `precision` and `targets`.
    """
    config, steps = read_trajectory(parameters)

    def make(catalog: Catalog) -> pd.DataFrame:
        arrays = published_arrays(catalog, config)
        images = scale(arrays.images, "standardize", fit_scaling(arrays.images, "standardize"))
        # The catalog is sorted by class, and a batch should hold both.
        arrays = replace(arrays, images=images).shuffled(seed=0)[: config.batch_size * steps]
        tables = []
        for precision, kind, losses in ARMS:
            arm = replace(arrays, targets=make_targets(arrays.targets, kind))
            table = compare_losses(config, losses, precision, arm, steps)
            tables.append(table.assign(precision=precision, targets=kind))
        return pd.concat(tables)

    depends = [config.model_dump_json(), str(steps)]
    return results.measure(parameters, "mechanisms/identity", make, depends=depends)


def read_trajectory(parameters: Parameters) -> tuple[RunConfig, int]:
    """Return the configuration of the trajectories, but for the loss, and their number of steps."""
    sections = read_sections(parameters)
    trajectory = sections.trajectory
    own = {"second_channel": "complement", "batch_size": trajectory.batch_size}
    return validate(RunConfig, "trajectory", sections.sizes[trajectory.size] | own), trajectory.steps


def make_targets(targets: np.ndarray, kind: str) -> np.ndarray:
    """Make targets (n, o, o, 2) of ``kind`` "one-hot" or "soft, mirrored" from the lesion channel of ``targets``."""
    # The identity holds for y in {0, 1}, which the published, soft and mirrored targets are not.
    lesion = targets[..., 0]
    if kind == "one-hot":
        return two_channels((lesion >= 0.5).astype(np.float32), "complement")
    return two_channels(lesion, "mirror")


def compare_losses(
    config: RunConfig, losses: Sequence[str], precision: str, arrays: Arrays, steps: int
) -> pd.DataFrame:
    """Train one network with `BCE` and one with each other loss, and compare their weights on the way.

    All start from the same weights and go through the arrays in order, again and again.

    Args:
        config: The run but for the loss; its seed decides the initial weights.
        losses: Names in `LOSSES`.
        precision: "float32" or "float64", of everything.
        arrays: Scaled images, and targets.
        steps: Number of steps.

    Returns:
        At steps 1, 2, 4, ... and at the last one, for each loss: `step`, `loss`; `distance` of its weights from those
        of `BCE`, as a share of the way that these have travelled.
    """
    batches = np.array_split(np.arange(len(arrays)), max(1, len(arrays) // config.batch_size))
    rows = []
    with set_precision(precision):
        models = {loss: compile_network(config, loss, precision, steps) for loss in (BCE, *losses)}
        start = _flatten_weights(models[BCE])
        for step in range(1, steps + 1):
            batch = arrays[batches[(step - 1) % len(batches)]]
            for model in models.values():
                model.train_on_batch(batch.images.astype(precision), batch.targets.astype(precision))
            # Powers of two are enough for a logarithmic axis.
            if step.bit_count() == 1 or step == steps:
                weights = _flatten_weights(models[BCE])
                travelled = np.linalg.norm(weights - start)
                for loss in losses:
                    apart = np.linalg.norm(_flatten_weights(models[loss]) - weights)
                    rows.append((step, loss, apart / travelled))
    return pd.DataFrame(rows, columns=["step", "loss", "distance"])


@contextmanager
def set_precision(precision: str) -> Iterator[None]:
    """Set the precision of all layers, losses and optimizers that Keras makes inside."""
    import keras

    # Layers follow the policy, losses and optimizers the float type.
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(precision)
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


def compile_network(config: RunConfig, loss: str, precision: str, steps: int):
    """Build the network of ``config`` with one of `LOSSES`, all of it in one precision, to be trained for ``steps``."""
    # Importing Keras takes seconds, which readers of a finished report should not have to wait.
    import keras

    from busi.model.losses import make_loss
    from busi.model.optimizers import make_optimizer
    from busi.model.unet import build

    config = config.model_copy(update=LOSSES[loss])
    keras.utils.set_random_seed(config.seed)
    body = build(config.image_size, config.base_filters, config.upsampling, precision, padding=config.padding)
    # The network's own last layer is float32, whatever the precision of the rest.
    head = keras.layers.Conv2D(2, 1, dtype=precision, name="head")
    model = keras.Model(body.input, head(body.get_layer("logits").input))
    eager = steps <= EAGER and keras.backend.backend() == "tensorflow"
    model.compile(make_optimizer(config), make_loss(config), run_eagerly=eager, jit_compile=False)
    return model


def _flatten_weights(model) -> np.ndarray:
    return np.concatenate([weight.ravel() for weight in model.get_weights()]).astype(np.float64)


def tabulate(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each trajectory of `measure`.

    Returns:
        `loss`, `precision`, `targets`, `first` and `last` distance, `together` (as `count_together`), `steps`.
    """
    table = []
    for (precision, targets, loss), way in rows.groupby(["precision", "targets", "loss"], sort=False):
        way = way.sort_values("step")
        first, *_, last = way.distance
        table.append((loss, precision, targets, first, last, count_together(way), way.step.max()))
    return pd.DataFrame(table, columns=["loss", "precision", "targets", "first", "last", "together", "steps"])


def count_together(way: pd.DataFrame) -> int:
    """Return the last step before a trajectory's distance first reaches `TOGETHER`, or 0."""
    # Once apart, two trajectories stay apart, even if they come close again by chance.
    parted = way.step[way.distance >= TOGETHER].min()
    # Where they never part this is nan, which no step reaches.
    together = way.step[~(way.step >= parted)]
    return int(together.max()) if len(together) else 0


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
    ends = rows[rows.step == rows.step.max()]
    together = (ends.distance < TOGETHER).sum()
    fig.suptitle(f"{together} of {len(ends)} trajectories stay with that of BCE", x=0.01, ha="left")
    return fig


def conclude(table: pd.DataFrame, seeds: pd.DataFrame, sizes: tuple[str, str]) -> str:
    """Return whether the losses are one, and how much a seed changes.

    Args:
        table: As `tabulate` returns it.
        seeds: As `tabulate_seeds` returns it.
        sizes: Of the trajectories and of the runs from several seeds, in words.
    """
    rows = table.set_index(["loss", "precision"])
    exact, usual = rows.loc[(KLD, "float64")], rows.loc[(KLD, "float32")]
    published, logits = rows.loc[(CLIPPED, "float32")], rows.loc[(LOGITS, "float32")]
    # The spread of a loss with a single seed is 0, and so does not count.
    by_loss = seeds.groupby("loss")[["end_loss", "accuracy"]]
    spread = (by_loss.max() - by_loss.min()).max()
    bce, kld = (pd.Series(published_row("loss", row)) for row in ("BCE", "KLD"))
    gap = (bce - kld).abs()
    text = "On one-hot targets KLD and BCE of the probabilities stay together for "
    text += f"{exact.together} of {exact.steps} steps in float64 and {usual.together} in float32 "
    text += f"(distance after the first {exact['first']:.1g} and {usual['first']:.1g} of the step; {sizes[0]}), "
    text += f"so they are one loss, and on soft, mirrored targets and clipped, as published, for {published.together}; "
    text += f"the published BCE, of logits, is another: its first step differs by {logits['first']:.0%}; "
    text += f"a change of seed alone moves the training loss by up to {spread.end_loss:.4f} "
    text += f"and the accuracy by {spread.accuracy:.4f} ({sizes[1]}), "
    return text + f"against Table 3's gaps of {gap.loss:.4f} and {gap.accuracy:.4f}."


@section.presents("identity")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/mechanisms_identity.csv`` and that of the seeds."""
    trained = load_results(parameters, "mechanisms/identity")
    seeds = tabulate_seeds(trained)
    rows = measure(parameters)
    table = results.write_table(parameters, "mechanisms_identity", tabulate(rows))
    results.write_table(parameters, "mechanisms_identity_seeds", seeds)
    config, _ = read_trajectory(parameters)
    size = f"{config.image_size} pixels, {config.base_filters} filters, batches of {config.batch_size}"
    return section.compose(
        draw(rows),
        table,
        conclude(table, seeds, (size, section.describe_runs(trained))),
        caption="Distance from the weights that BCE of the probabilities leads to, as a share of the way travelled; "
        f"same start, same images in the same order. {size}, baseline optimizer on standardized images.",
        table_caption="Number of steps that each trajectory stays together with that of BCE of the probabilities "
        f"(distance below {TOGETHER:.0%}).",
        digits={"first": 8, "last": 6},
    )
