"""Section 2: when training falls onto the floor, what the network looks like there, and what takes it off again."""

import numpy as np
import pandas as pd

from busi.config import RunConfig, Study
from busi.dataset.catalog import Catalog
from busi.evaluation import floors
from busi.mechanisms import experiments
from busi.runs import STATE, Run, Store

NEAR = 0.0001
"""Scores this close are the same."""

CONSTANT, PLATEAU, FINDS = "constant", "plateau", "finds lesions"
"""What has become of a network. "constant": its AUC is that of a constant, it tells no pixel from another. "plateau":
it does, and still calls (almost) everything background. "finds lesions": its accuracy is above the floor."""

PROBED = 16
"""Training images, evenly spread, on which gradient and ReLUs are looked at."""


def probe(model, images: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """A network as it stands; its weights have moved afterwards.

    Args:
        model: Compiled with its loss; as `busi.model.unet.build` makes it.
        images: float32 (n, s, s, 1), as the network takes them.
        targets: float32 (n, o, o, 2).

    Returns:
        `gradient_norm`: of the loss over all weights, the Euclidean one. `dead_relus`: share of the filters behind a
        ReLU that are 0 on every pixel of every image.
    """
    import keras

    active = [layer.output for layer in model.layers if getattr(layer, "activation", None) is keras.activations.relu]
    maps = keras.tree.flatten(keras.Model(model.input, active)(images))
    dead = np.concatenate([np.asarray(keras.ops.convert_to_numpy(each)).max(axis=(0, 1, 2)) == 0 for each in maps])
    # One step of SGD at rate 1 moves the weights by minus the gradient, on any backend. In float64, so that a small
    # gradient is not lost beside the weight.
    model.compile(keras.optimizers.SGD(1.0), model.loss, run_eagerly=keras.backend.backend() == "tensorflow")
    before = [weight.astype(np.float64) for weight in model.get_weights()]
    model.train_on_batch(images, targets)
    moved = sum(((new - old) ** 2).sum() for new, old in zip(model.get_weights(), before, strict=True))
    return {"gradient_norm": float(np.sqrt(moved)), "dead_relus": float(dead.mean())}


def measured(study: Study) -> pd.DataFrame | None:
    """One row a setting, and before them the untrained baseline.

    Returns:
        `setting`, `optimizer` ("Adam", "SGD", "SGD + momentum"; missing for a changed baseline), `learning_rate`,
        `epochs`, `first_loss` (mean over the first epoch), `loss` (last epoch); `accuracy`, `auc`, `lesion_share` and
        those of `probe`, all of the final weights; `floor_accuracy`, `floor_auc`.
    """
    runs = experiments.ensure(study, "collapse")

    def make(data: Catalog) -> pd.DataFrame:
        finished = {label: found[0] for label, found in runs.items() if found}
        return _rows(finished, data, experiments.store(study, "collapse"))

    return experiments.gathered(study, "collapse", make, *experiments.flat(runs))


def _rows(runs: dict[str, Run], data: Catalog, where: Store) -> pd.DataFrame:
    from busi import protocols

    config = next(iter(runs.values())).config
    rows = [{"setting": "untrained", "epochs": 0} | _probed(config, None, protocols.of(config, data))]
    for label, run in runs.items():
        training = protocols.of(run.config, data)
        floor = floors.of(training.training.targets)
        row = _scores(label, run) | {"floor_accuracy": floor["accuracy"], "floor_auc": floor["auc"]}
        if file := experiments.weights(run, data, where, STATE):
            row |= _probed(run.config, file, training)
        rows.append(row)
    return pd.DataFrame(rows)


def _scores(label: str, run: Run) -> dict:
    config, still = run.config, run.metrics["still"]
    name = {("adam", False): "Adam", ("sgd", False): "SGD", ("sgd", True): "SGD + momentum"}
    optimizer = name[config.optimizer, bool(config.momentum)]
    return {
        "setting": label,
        "optimizer": optimizer if label.startswith(f"{optimizer},") else None,
        "learning_rate": config.learning_rate,
        "epochs": config.epochs,
        "first_loss": run.history.loss.iloc[0],
        "loss": run.history.loss.iloc[-1],
        "accuracy": still["accuracy"],
        "auc": still["auc"],
        "lesion_share": still["lesion_share"],
    }


def _probed(config: RunConfig, file, protocol) -> dict[str, float]:
    from busi import training

    model = training.compiled(config)
    if file:
        model.load_weights(file)
    some = np.linspace(0, len(protocol.training) - 1, min(PROBED, len(protocol.training))).astype(int)
    return probe(model, protocol.training.images[some], protocol.training.targets[some])


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `measured` with `state`: `CONSTANT`, `PLATEAU` or `FINDS`; missing for the untrained network."""
    state = np.where((rows.auc - rows.floor_auc).abs() <= NEAR, CONSTANT, PLATEAU).astype(object)
    state[rows.accuracy > rows.floor_accuracy + NEAR] = FINDS
    return rows.assign(state=pd.Series(state, rows.index).where(rows.accuracy.notna()))


def conclusion(table: pd.DataFrame | None) -> str:
    """What becomes of the settings, whether the rate decides for Adam, and which single change frees the baseline.

    Args:
        table: As `table`.
    """
    if table is None:
        return experiments.NOT_RUN
    ran = table[table.state.notna()]
    epochs = f"{ran.epochs.max():.0f} {'epoch' if ran.epochs.max() == 1 else 'epochs'}"
    states = "; ".join(_state(ran, state) for state in (FINDS, PLATEAU, CONSTANT) if (ran.state == state).any())
    text = f"Of {len(ran)} settings, after {epochs}, {states}; {_adam(ran)}"
    changes = ran[ran.optimizer.isna()]
    freed = list(changes.setting[changes.state == FINDS])
    if not len(changes):
        return f"{text}."
    named = f": {'; '.join(freed)}" if freed else ""
    return f"{text}; of {len(changes)} single changes to the baseline {len(freed) or 'none'} free it{named}."


def _state(ran: pd.DataFrame, state: str) -> str:
    some = ran[ran.state == state]
    named = {
        FINDS: f"{len(some)} find lesions ({'; '.join(some.setting)})",
        PLATEAU: f"{len(some)} stand on the floor's plateau (AUC to {some.auc.max():.3f}, no better than background)",
        CONSTANT: f"{len(some)} have collapsed into a constant ({'; '.join(some.setting)})",
    }
    dead = some.dead_relus.mean()
    return named[state] if np.isnan(dead) else f"{named[state]} with {dead:.0%} of the ReLUs dead"


def _adam(ran: pd.DataFrame) -> str:
    adam = ran[ran.optimizer == "Adam"].sort_values("learning_rate")
    good, bad = adam.learning_rate[adam.state == FINDS], adam.learning_rate[adam.state != FINDS]
    rates = [", ".join(f"{rate:g}" for rate in each) for each in (good, bad)]
    if len(good) and len(bad):
        return f"Adam finds lesions at {rates[0]} and not at {rates[1]}: the rate decides, against claim 2"
    if len(good):
        return f"Adam finds lesions at every rate tried ({rates[0]}), as claim 2 has it"
    return f"Adam finds lesions at none of the rates tried ({rates[1]}), so that claim 2 stays open here"
