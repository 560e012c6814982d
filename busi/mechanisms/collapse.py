"""Collapse: settings under which training falls onto the floor, the state of the network there, and ways off it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from busi import display, results
from busi.config import Parameters, RunConfig
from busi.dataset.arrays import Arrays
from busi.dataset.catalog import Catalog
from busi.dataset.parts import load_parts
from busi.mechanisms import section
from busi.results import Results
from busi.scoring.floors import constant_floors
from busi.study import find_group, find_trained, load_results, open_store

GROUP = "mechanisms/collapse"

UNTRAINED = "untrained"
"""Name of the row of the baseline before training."""

NEAR = 0.0001
"""Largest difference between scores that count as equal."""

CONSTANT, PLATEAU, FINDS = "constant", "plateau", "finds lesions"
"""States of a network.

"constant": its AUC is that of a constant, it does not tell one pixel from another. "plateau": it ranks pixels, but
still calls (almost) everything background. "finds lesions": its accuracy is above the floor.
"""

MARKERS = {FINDS: "o", PLATEAU: "s", CONSTANT: "X"}

PROBED = 16
"""Number of training images, evenly spread, on which gradient and ReLUs are measured."""


def measure(parameters: Parameters) -> tuple[Results, pd.DataFrame]:
    """Return the results of the runs, and a table of what their final weights are like.

    Returns:
        Results; one row for the untrained baseline and one for each setting: `setting`, `gradient_norm` and
        `dead_relus` (as `probe`), `floor_accuracy` and `floor_auc`.
    """
    trained = load_results(parameters, GROUP)

    def make(catalog: Catalog) -> pd.DataFrame:
        store = open_store(parameters, catalog)
        rows = []
        for setting, (config,) in find_group(parameters, GROUP).variants.items():
            training = load_parts(config, catalog).training
            # The first setting is the baseline.
            if not rows:
                rows.append({"setting": UNTRAINED} | _probe_network(config, training, weights=None))
            run = find_trained(config, store)
            floors = constant_floors(training.targets)
            row = {"setting": setting, "floor_accuracy": floors["accuracy"], "floor_auc": floors["auc"]}
            rows.append(row | _probe_network(config, training, run.weights))
        return pd.DataFrame(rows)

    return trained, results.measure(parameters, "mechanisms/collapse_probe", make, depends=trained.runs.key)


def _probe_network(config: RunConfig, training: Arrays, weights) -> dict[str, float]:
    # Importing Keras takes seconds, which readers of a finished report should not have to wait.
    from busi.training import compile_network

    # The gradient is taken by another optimizer, so that the number of steps does not matter.
    model = compile_network(config, planned_steps=1)
    if weights:
        model.load_weights(weights)
    # Evenly spread, because the images are sorted by class.
    chosen = np.linspace(0, len(training) - 1, min(PROBED, len(training))).astype(int)
    return probe(model, training.images[chosen], training.targets[chosen])


def probe(model, images: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Measure the gradient and the dead ReLUs of a network; its weights are changed afterwards.

    Args:
        model: Compiled with its loss, as `busi.training.compile_network` returns it.
        images: float32 (n, s, s, 1), scaled.
        targets: float32 (n, o, o, 2).

    Returns:
        `gradient_norm`: Euclidean norm of the loss' gradient over all weights. `dead_relus`: share of the filters
        behind a ReLU that are 0 on every pixel of every image.
    """
    import keras

    active = [layer.output for layer in model.layers if getattr(layer, "activation", None) is keras.activations.relu]
    dead = []
    for output in keras.tree.flatten(keras.Model(model.input, active)(images)):
        maps = keras.ops.convert_to_numpy(output)
        dead.append(maps.max(axis=(0, 1, 2)) == 0)
    # One step of SGD at rate 1 changes the weights by minus the gradient, on any backend.
    model.compile(keras.optimizers.SGD(1.0), model.loss, run_eagerly=keras.backend.backend() == "tensorflow")
    # Subtracted in float64, so that a small gradient is not lost next to the weight.
    before = [weight.astype(np.float64) for weight in model.get_weights()]
    model.train_on_batch(images, targets)
    after = model.get_weights()
    squares = sum(((new - old) ** 2).sum() for new, old in zip(after, before, strict=True))
    return {"gradient_norm": float(np.sqrt(squares)), "dead_relus": float(np.concatenate(dead).mean())}


def tabulate(trained: Results, probes: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each setting, and before them one for the untrained baseline.

    Args:
        trained: Results of the runs.
        probes: As `measure` returns them.

    Returns:
        `setting`, `epochs`, `gradient_norm`, `dead_relus`; `optimizer` ("Adam", "SGD", "SGD + momentum"; missing for a
        changed baseline), `learning_rate`; `first_loss` and `loss` (mean over the first and the last epoch);
        `accuracy`, `auc` and `lesion_share` of the final weights; `floor_accuracy`, `floor_auc`; `state`: `CONSTANT`,
        `PLATEAU` or `FINDS`. All that needs training is missing for the untrained baseline.
    """
    # The untrained baseline is a row of the probes alone.
    measured = ["optimizer", "learning_rate", "first_loss", "loss", "accuracy", "auc", "lesion_share"]
    rows = [_describe_run(trained.of(setting)) for setting in trained.variants]
    table = probes.merge(pd.DataFrame(rows, columns=["setting", "epochs", *measured]), on="setting", how="left")
    is_constant = (table.auc - table.floor_auc).abs() <= NEAR
    finds_lesions = table.accuracy > table.floor_accuracy + NEAR
    state = pd.Series(PLATEAU, table.index).mask(is_constant, CONSTANT).mask(finds_lesions, FINDS)
    table["state"] = state.where(table.accuracy.notna())
    table["epochs"] = table.epochs.fillna(0).astype(int)
    head = ["setting", "epochs", "gradient_norm", "dead_relus"]
    return table[[*head, *measured, "floor_accuracy", "floor_auc", "state"]]


def _describe_run(trained: Results) -> dict:
    run = trained.runs.iloc[0]
    config = trained.configs[0]
    optimizer = "Adam" if config.optimizer == "adam" else "SGD"
    if config.momentum:
        optimizer = "SGD + momentum"
    return {
        "setting": run.variant,
        "epochs": run.planned_epochs,
        # Settings of the sweep are named after their optimizer, changed baselines after the change.
        "optimizer": optimizer if run.variant.startswith(f"{optimizer},") else None,
        "learning_rate": config.learning_rate,
        "first_loss": trained.epochs.loss.iloc[0],
        "loss": trained.epochs.loss.iloc[-1],
        "accuracy": run.still_accuracy,
        "auc": run.still_auc,
        "lesion_share": run.still_lesion_share,
    }


@display.style()
def draw(table: pd.DataFrame) -> Figure:
    """Draw first-epoch loss, gradient norm and dead ReLUs against the learning rate; changed baselines are left out."""
    panels = {"first_loss": "Loss, first epoch", "gradient_norm": "Gradient norm", "dead_relus": "Dead ReLUs (share)"}
    swept = table[table.optimizer.notna()]
    untrained = table[table.setting == UNTRAINED]
    fig, axes = plt.subplots(1, len(panels), figsize=(8.6, 3.4))
    for ax, (column, title) in zip(axes, panels.items(), strict=True):
        shared = {"data": swept, "x": "learning_rate", "y": column, "hue": "optimizer", "ax": ax}
        sns.lineplot(**shared, errorbar=None, legend=False)
        sns.scatterplot(**shared, style="state", markers=MARKERS, s=70)
        # One legend for all panels is enough.
        ax.get_legend().remove()
        # Before training there is no loss of an epoch.
        if untrained[column].notna().all():
            ax.axhline(untrained[column].iloc[0], color=display.GREY, linestyle=":", label=UNTRAINED)
        ax.set(xscale="log", xlabel="Learning rate", ylabel="", title=title)
    # Gradients differ by orders of magnitude.
    axes[1].set_yscale("log")
    fig.legend(*axes[1].get_legend_handles_labels(), loc="outside right center", fontsize=10)
    return fig


def conclude(table: pd.DataFrame) -> str:
    """Return what becomes of the settings, whether the rate decides for Adam, and which change frees the baseline."""
    trained = table[table.state.notna()]
    states = []
    for state in (FINDS, PLATEAU, CONSTANT):
        rows = trained[trained.state == state]
        if len(rows):
            states.append(_conclude_state(rows, state))
    text = f"Of {len(trained)} settings, after {section.count_epochs(trained.epochs.max())}, {'; '.join(states)}"
    text += f"; {_conclude_adam(trained)}"
    changes = trained[trained.optimizer.isna()]
    if changes.empty:  # a quick profile trains the first settings only
        return f"{text}."
    freed = list(changes.setting[changes.state == FINDS])
    named = f": {'; '.join(freed)}" if freed else ""
    return f"{text}; of {len(changes)} single changes to the baseline {len(freed) or 'none'} free it{named}."


def _conclude_state(rows: pd.DataFrame, state: str) -> str:
    settings = "; ".join(rows.setting)
    sentences = {
        FINDS: f"{len(rows)} find lesions ({settings})",
        PLATEAU: f"{len(rows)} stand on the floor's plateau (AUC to {rows.auc.max():.3f}, no better than background)",
        CONSTANT: f"{len(rows)} have collapsed into a constant ({settings})",
    }
    return f"{sentences[state]} with {rows.dead_relus.mean():.0%} of the ReLUs dead"


def _conclude_adam(trained: pd.DataFrame) -> str:
    adam = trained[trained.optimizer == "Adam"].sort_values("learning_rate")
    finds = adam.state == FINDS
    good = ", ".join(f"{rate:g}" for rate in adam.learning_rate[finds])
    bad = ", ".join(f"{rate:g}" for rate in adam.learning_rate[~finds])
    if good and bad:
        return f"Adam finds lesions at {good} and not at {bad}: the rate decides, against claim 2"
    if good:
        return f"Adam finds lesions at every rate tried ({good}), as claim 2 has it"
    return f"Adam finds lesions at none of the rates tried ({bad}), so that claim 2 stays open here"


@section.presents("collapse")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/mechanisms_collapse.csv``."""
    trained, probes = measure(parameters)
    table = results.write_table(parameters, "mechanisms_collapse", tabulate(trained, probes))
    columns = ["setting", "state", "loss", "accuracy", "auc", "lesion_share", "gradient_norm", "dead_relus"]
    size = section.describe_size(find_group(parameters, GROUP).configs[0])
    return section.compose(
        draw(table),
        table[columns],
        conclude(table),
        caption="Networks by optimizer and learning rate, with their state after training. "
        f"{size}; everything else as published, except for the padding.",
        table_caption="All settings, and the baseline before training. Loss: mean over the last epoch. All other "
        "columns: final weights.",
        digits={"dead_relus": 3},
    )
