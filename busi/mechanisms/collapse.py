"""Collapse: settings under which networks never find a lesion, and the state of their weights then."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from busi import display, results
from busi.config import Parameters
from busi.dataset.catalog import Catalog
from busi.dataset.parts import load_parts
from busi.mechanisms import section
from busi.results import Results
from busi.runs import Run
from busi.scoring.fates import count_fates

GROUP = "mechanisms/collapse"

MARKERS = {"learned": "o", "falling": "D", "plateau": "s", "dead": "X", "diverged": "P"}
"""Marker of each fate of a run."""

PROBED = 16
"""Number of training images on which the gradient and the ReLUs are measured."""


def measure_run(run: Run, catalog: Catalog) -> pd.DataFrame:
    """Measure the gradient and the dead ReLUs of a run's network, with its final weights and before training.

    Returns:
        One row: `gradient_norm` and `dead_relus` (as `probe`), `untrained_gradient_norm` and `untrained_dead_relus`.
    """
    from busi.training import compile_network

    training = load_parts(run.config, catalog).training
    probed = training.images[:PROBED], training.targets[:PROBED]
    # `probe` uses an optimizer of its own, so the number of steps does not matter.
    model = compile_network(run.config, planned_steps=1)
    initial = model.get_weights()
    model.load_weights(run.weights)
    row = probe(model, *probed)
    model.set_weights(initial)
    untrained = probe(model, *probed)
    row |= {f"untrained_{name}": value for name, value in untrained.items()}
    return pd.DataFrame([row])


def probe(model, images: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Measure the gradient and the dead ReLUs of a network; this changes its weights and its optimizer.

    Args:
        model: Compiled with its loss, as `busi.training.compile_network` returns it.
        images: float32 (n, s, s, 1), scaled.
        targets: float32 (n, o, o, 2).

    Returns:
        `gradient_norm`: Euclidean norm of the gradient of the loss with respect to all weights. `dead_relus`: share of
        the filters with a ReLU whose output is 0 at every pixel of every image.
    """
    import keras

    # A filter that is 0 at every pixel passes no gradient on: its own weights no longer change.
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
    norms = [np.linalg.norm(new - old) for new, old in zip(after, before, strict=True)]
    return {"gradient_norm": float(np.linalg.norm(norms)), "dead_relus": float(np.concatenate(dead).mean())}


def tabulate(trained: Results, probes: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each run.

    Returns:
        `setting`, `fold`, `seed`; `steps` trained; with the final weights, `fate` and `dice` (as
        `busi.scoring.fates.measure_fate`) and `still_loss`; the columns of ``probes``; `optimizer` ("Adam", "SGD",
        "SGD + momentum") and `learning_rate`, both missing for a changed baseline.
    """
    keys = ["variant", "fold", "seed"]
    runs = trained.runs
    batches = [config.batch_size for config in trained.configs]
    runs = runs.assign(steps=runs.images // batches * runs.epochs)
    table = (
        runs[[*keys, "steps", "fate", "dice", "still_loss"]]
        .merge(probes, on=keys)
        .rename(columns={"variant": "setting"})
    )
    # Settings of the sweep are named after optimizer and rate, changed baselines after what is changed.
    sweep = table.setting.str.extract(r"^(?P<optimizer>.+), (?P<learning_rate>[\d.]+)$")
    return table.join(sweep.astype({"learning_rate": float}))


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each setting: `setting`, `fates` of its runs in words, and means over them."""
    settings = table.groupby("setting", sort=False)
    means = settings[["steps", "dice", "still_loss", "gradient_norm", "dead_relus"]].mean()
    means.insert(0, "fates", settings.fate.agg(count_fates))
    return means.reset_index()


@display.style()
def draw(table: pd.DataFrame) -> Figure:
    """Draw Dice, gradient norm and dead ReLUs against the learning rate; changed baselines are left out."""
    panels = {"dice": "Dice, training images", "gradient_norm": "Gradient norm", "dead_relus": "Dead ReLUs (share)"}
    swept = table[table.optimizer.notna()]
    fig, axes = plt.subplots(len(panels), 1, figsize=(display.WIDTH, 7.6), sharex=True)
    for ax, (column, title) in zip(axes, panels.items(), strict=True):
        shared = {"data": swept, "x": "learning_rate", "y": column, "hue": "optimizer", "ax": ax}
        sns.lineplot(**shared, errorbar=None, legend=False)
        sns.scatterplot(**shared, style="fate", markers=MARKERS, s=70)
        # There is no Dice of the untrained network.
        if f"untrained_{column}" in table:
            before = table[f"untrained_{column}"].mean()
            ax.axhline(before, color=display.GREY, linestyle=":", label="untrained")
        ax.set(xscale="log", xlabel="Learning rate", ylabel="", title=title)
        ax.label_outer()
    # Gradients differ by orders of magnitude.
    axes[1].set_yscale("log")
    display.add_legend(fig)
    learned = (swept.fate == "learned").sum()
    display.add_title(fig, f"{learned} of {len(swept)} runs at these learning rates learned")
    return fig


def conclude(table: pd.DataFrame, size: str) -> str:
    """Return the fates of the runs, which settings learn, and at how many rates each optimizer does."""
    settings = table.groupby("setting", sort=False)
    learned = settings.fate.agg(lambda fates: (fates == "learned").sum())
    runs = settings.size()
    told = [f"{setting} ({count} of {runs[setting]})" for setting, count in learned.items() if count]
    sentences = [f"Fates of {display.count(len(table), 'run')}: {count_fates(table.fate)}."]
    sentences.append(f"Lesions are learned by {'; '.join(told) or 'no setting'}.")
    # Larger batches also mean fewer steps, which has to be said. The baseline comes first.
    # A run that diverged took fewer.
    steps = settings.steps.max()
    for setting, own in steps[steps != steps.iloc[0]].items():
        sentences.append(f"The setting {setting} has {own:,} steps instead of {steps.iloc[0]:,}.")
    if learned.iloc[0] == runs.iloc[0]:
        sentences.append(
            f"At this size the baseline learned in all of its {runs.iloc[0]} runs. So this section shows what keeps "
            "networks from learning, not why the published baseline, at its own size, learns so late."
        )
    # A network whose output is constant need not have only dead filters.
    dead = table[table.fate == "dead"].groupby("optimizer", sort=False).dead_relus
    shares = [f"{optimizer} {own.min():.0%} to {own.max():.0%}" for optimizer, own in dead]
    if shares:
        sentences.append(f"Dead ReLUs of dead networks: {', '.join(shares)}.")
    sentences += [_compare_rates(table.dropna(subset="optimizer")), f"Size: {size}."]
    return " ".join(sentences)


def _compare_rates(runs: pd.DataFrame) -> str:
    """Return at how many of its rates each optimizer learns from every seed: claim 2 is about that."""
    told = []
    for optimizer, own in runs.groupby("optimizer", sort=False):
        # A rate at which only some seeds learn does not count.
        reliable = (own.fate == "learned").groupby(own.learning_rate).all()
        told.append(f"{optimizer} {reliable.sum()} of {len(reliable)}")
    if not told:
        return "No rate was varied."
    listed = ", ".join(told)
    return f"Rates at which every seed learns lesions: {listed}; too few to say whether the rate matters less to Adam."


@section.presents("collapse")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/mechanisms_collapse.csv``."""
    trained, probes = section.measure_runs(parameters, GROUP, "mechanisms/collapse_probe", measure_run)
    table = results.write_table(parameters, "mechanisms_collapse", tabulate(trained, probes))
    size = section.describe_runs(trained)
    return section.compose(
        draw(table),
        summarize(table),
        conclude(table, size),
        caption=f"Networks by optimizer and learning rate, with their fate. {size}; everything else as published, "
        "except for the padding. Lines: means over seeds; dotted: before training.",
        table_caption="Means over seeds, with the final weights. Dice: at one half, on the training images.",
        digits={"steps": 0, "dead_relus": 3},
    )
