"""Section 3: on one-hot targets and behind a softmax, KLD is BCE; and what Keras trains as BCE is neither.

For two channels y and 1 - y with y in {0, 1}, and probabilities p and 1 - p:

    BCE = (-[y log p + (1 - y) log(1 - p)] - [(1 - y) log(1 - p) + y log p]) / 2 = -y log p - (1 - y) log(1 - p)
    KLD = y log(y / p) + (1 - y) log((1 - y) / (1 - p))                         = -y log p - (1 - y) log(1 - p)

Keras on TensorFlow computes its BCE behind a softmax of sigmoids of the softmax' logits (`busi.model.losses`).
"""

import itertools
from contextlib import contextmanager

import numpy as np
import pandas as pd

from busi.config import RunConfig, Study, validated
from busi.dataset.arrays import Arrays, published, two_channels
from busi.dataset.catalog import Catalog
from busi.mechanisms import experiments
from busi.runs import Run
from busi.study import Runs

EAGER = 16
"""Steps up to which tracing a graph takes longer than the steps themselves."""

TOGETHER = 0.01
"""Two trajectories are together while their distance is below this share of the way travelled."""

BCE, KLD = "BCE of probabilities", "KLD"

LOSSES = {BCE: {"loss": "bce", "bce": "probabilities"}, KLD: {"loss": "kld"}, "BCE of logits": {"loss": "bce"}}

ARMS = (
    ("float64", "one-hot", (BCE, KLD)),
    ("float32", "one-hot", (BCE, KLD, "BCE of logits")),
    ("float32", "soft, mirrored", (BCE, KLD)),
)
"""Precision, targets, and losses that start from the same weights; each is compared with the first."""


def follow(config: RunConfig, precision: str, arrays: Arrays, batch_size: int, steps: int) -> dict[int, tuple]:
    """Train a network for some steps, in the order of the arrays, again and again.

    Args:
        config: The run; its seed decides the initial weights.
        precision: "float32" or "float64", of everything.
        arrays: Images as the network takes them, and targets.
        batch_size: Images a step.
        steps: To train.

    Returns:
        Step -> (all weights as one float64 vector, loss of that step), for steps 0, 1, 2, 4, ... and the last. The
        loss at step 0 is missing.
    """
    with precise(precision):
        model = _compiled(config, precision, eager=steps <= EAGER)
        found = {0: (_vector(model), np.nan)}
        rows = itertools.cycle(np.array_split(np.arange(len(arrays)), max(1, len(arrays) // batch_size)))
        for step, batch in zip(range(1, steps + 1), rows, strict=False):
            model.reset_metrics()
            some = arrays[batch]
            loss = model.train_on_batch(some.images.astype(precision), some.targets.astype(precision))
            if step == steps or step & (step - 1) == 0:
                found[step] = (_vector(model), float(np.ravel(loss)[0]))
    return found


@contextmanager
def precise(precision: str):
    """Everything that Keras makes inside is of this precision: layers, losses, optimizers."""
    import keras

    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(precision)
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def _compiled(config: RunConfig, precision: str, *, eager: bool):
    import keras

    from busi.model import losses, optimizers, unet

    keras.utils.set_random_seed(config.seed)
    body = unet.build(config.image_size, config.base_filters, config.upsampling, precision, padding=config.padding)
    # The network's own softmax is float32, whatever the rest is.
    head = keras.layers.Conv2D(2, 1, activation="softmax", dtype=precision, name="head")
    model = keras.Model(body.input, head(body.get_layer("probability").input))
    eager = eager and keras.backend.backend() == "tensorflow"
    model.compile(optimizers.get(config), losses.get(config), run_eagerly=eager, jit_compile=False)
    return model


def _vector(model) -> np.ndarray:
    return np.concatenate([weight.ravel() for weight in model.get_weights()]).astype(np.float64)


def distance(a: np.ndarray, b: np.ndarray, start: np.ndarray) -> float:
    """How far b is from a, as a share of the way that a has come from ``start``: all (n,) weights."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(a - start))


def measured(study: Study) -> pd.DataFrame | None:
    """Trajectories that start together, compared with that of `BCE` in the same precision and on the same targets.

    Returns:
        One row a loss and step: `precision`, `targets`, `loss`, `step`, `distance` (as `distance`), `value` (of the
        loss in that step), `reference` (of `BCE` in that step).
    """
    given = experiments.settings(study)["trajectory"]

    def make(data: Catalog) -> pd.DataFrame:
        shared = experiments.size(study, given["size"]) | {"second_channel": "complement"}
        base = validated(RunConfig, "trajectory", shared)
        arrays = _standardized(published(data, base), given["batch_size"] * given["steps"])
        rows = []
        for precision, targets, losses in ARMS:
            config = [base.model_copy(update=LOSSES[loss]) for loss in losses]
            some = Arrays(arrays.images, _targets(arrays.targets, targets))
            ways = [follow(each, precision, some, given["batch_size"], given["steps"]) for each in config]
            for loss, way in zip(losses[1:], ways[1:], strict=True):
                rows += _compared(ways[0], way, {"precision": precision, "targets": targets, "loss": loss})
        return pd.DataFrame(rows)

    return experiments.gathered(study, "identity", make)


def _standardized(arrays: Arrays, most: int) -> Arrays:
    from busi.model import preprocessing

    order = np.random.default_rng(0).permutation(len(arrays))[:most]
    return Arrays(preprocessing.scale(arrays.images, "standardize")[order], arrays.targets[order])


def _targets(targets: np.ndarray, kind: str) -> np.ndarray:
    lesion = targets[..., 0]
    if kind == "one-hot":
        return two_channels((lesion >= 0.5).astype(np.float32), "complement")
    return two_channels(lesion, "mirror")


def _compared(reference: dict, way: dict, head: dict) -> list[dict]:
    start, _ = reference[0]
    rows = []
    for step in list(reference)[1:]:
        (a, first), (b, second) = reference[step], way[step]
        rows.append(head | {"step": step, "distance": distance(a, b, start), "value": second, "reference": first})
    return rows


def together(rows: pd.DataFrame) -> int:
    """The last recorded step up to which one trajectory's distance stays below `TOGETHER`; 0 if none does."""
    apart = rows.sort_values("step")
    apart = apart[(apart.distance >= TOGETHER).cummax() == 0]
    return int(apart.step.max()) if len(apart) else 0


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """By trajectory: `loss`, `precision`, `targets`, `first` and `last` distance, `together` (steps), `steps`."""
    found = []
    for (precision, targets, loss), part in rows.groupby(["precision", "targets", "loss"], sort=False):
        part = part.sort_values("step")
        found.append(
            {"loss": loss, "precision": precision, "targets": targets, "first": part.distance.iloc[0]}
            | {"last": part.distance.iloc[-1], "together": together(part), "steps": int(part.step.max())}
        )
    return pd.DataFrame(found)


def seeds(found: Runs) -> pd.DataFrame:
    """The same loss from several seeds: `loss`, `seed`, `epochs`; of the last epoch `end_loss` and `accuracy`."""
    rows = [
        {"loss": label, "seed": run.config.seed, "epochs": run.config.epochs}
        | {"end_loss": run.metrics["training"]["loss"], "accuracy": run.metrics["training"]["accuracy"]}
        for label, each in found.items()
        for run in each
    ]
    return pd.DataFrame(rows, columns=["loss", "seed", "epochs", "end_loss", "accuracy"])


def spread(runs: list[Run], score: str) -> float:
    """Largest less smallest of a training metric over runs that differ in their seed."""
    values = [run.metrics["training"][score] for run in runs]
    return max(values) - min(values)


def conclusion(table: pd.DataFrame | None, found: Runs, published_gap: dict[str, float]) -> str:
    """Whether the losses are one, and what a seed is worth.

    Args:
        table: As `table`.
        found: Runs by loss, several seeds each.
        published_gap: Table 3's row BCE less row KLD: `loss`, `accuracy`.
    """
    if table is None:
        return experiments.NOT_RUN
    hot = table[table.targets == "one-hot"].set_index(["loss", "precision"])
    exact, usual, other = hot.loc[(KLD, "float64")], hot.loc[(KLD, "float32")], hot.loc[("BCE of logits", "float32")]
    text = (
        f"On one-hot targets KLD and BCE of the probabilities stay together for {exact.together} of {exact.steps} "
        f"steps in float64 and {usual.together} in float32 (distance after the first {exact['first']:.0e} and "
        f"{usual['first']:.0e} of the step), so they are one loss; what Keras trains as BCE, of logits, is another: "
        f"its first step differs by {other['first']:.0%}"
    )
    return f"{text}; {_of_seeds(found, published_gap)}."


def _of_seeds(found: Runs, published_gap: dict[str, float]) -> str:
    several = {label: each for label, each in found.items() if len(each) > 1}
    if not several:
        return "several seeds have not been run yet"
    loss, accuracy = (max(spread(each, score) for each in several.values()) for score in ("loss", "accuracy"))
    epochs = max(run.config.epochs for each in several.values() for run in each)
    return (
        f"a change of seed alone moves the training loss by up to {loss:.4f} and the accuracy by {accuracy:.4f} "
        f"after {epochs} {'epoch' if epochs == 1 else 'epochs'}, against Table 3's gaps of {published_gap['loss']:.4f} "
        f"and {published_gap['accuracy']:.4f}"
    )
