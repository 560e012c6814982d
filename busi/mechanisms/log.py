"""The printed log: the only training log of the study that was published, and the same training three times here.

It is the public class's default, Adam at 0.01 at full width, interrupted in its fourth epoch. A mean loss of 1601 is
impossible for clipped probabilities, so that the log also says what the published cross-entropy was taken of.
"""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from busi import display, results
from busi.config import Parameters
from busi.mechanisms import section
from busi.published import published_log
from busi.results import Results
from busi.study import load_results

GROUP = "mechanisms/log"

METRICS = ("loss", "accuracy", "auc")

CLIPPED = 32
"""Highest cross-entropy of probabilities clipped to [1e-7, 1 - 1e-7]: -2 ln 1e-7, of targets that mirror to 2."""


def tabulate(trained: Results) -> pd.DataFrame:
    """Return one row for each epoch of the log.

    Returns:
        `epoch`; `published_loss`, `published_accuracy` and `published_auc`; `seeds`, and over these the lowest and the
        highest value of ours, e.g. `loss_low` and `loss_high`.
    """
    epochs = trained.epochs.groupby("epoch")
    ours = pd.DataFrame({"seeds": epochs.size()})
    for metric in METRICS:
        ours[f"{metric}_low"] = epochs[metric].min()
        ours[f"{metric}_high"] = epochs[metric].max()
    published = published_log().rename(columns={metric: f"published_{metric}" for metric in METRICS})
    return published.merge(ours.reset_index(), on="epoch", how="left")


@display.style()
def draw(table: pd.DataFrame, trained: Results) -> Figure:
    """Draw loss, accuracy and AUC of each epoch: published, and one line for each seed."""
    fig, axes = plt.subplots(len(METRICS), 1, figsize=(display.WIDTH, 6.4), sharex=True)
    for ax, metric in zip(axes, METRICS, strict=True):
        look = {"units": "run", "estimator": None, "marker": "o", "color": display.OURS}
        sns.lineplot(trained.epochs, x="epoch", y=metric, ax=ax, **look)
        ax.plot(table.epoch, table[f"published_{metric}"], "*", color=display.PUBLISHED, markersize=11)
        ax.set(xlabel="Epoch", ylabel={"auc": "AUC"}.get(metric, metric.capitalize()), xticks=table.epoch)
    # The first epoch is a thousand times higher than the others.
    axes[0].set_yscale("log")
    display.add_title(fig, "The printed log (stars) and the same training here (lines, one a seed)")
    return fig


def conclude(table: pd.DataFrame, trained: Results) -> str:
    """Return whether the first epoch explodes here as printed, and whether the second and third read the same."""
    # The fourth epoch was interrupted, and so is not comparable.
    first, later = table.iloc[0], table.iloc[1:3]
    exploded = (trained.epochs[trained.epochs.epoch == 1].loss > CLIPPED).sum()
    within = 0
    for metric in METRICS:
        # Rounded as Keras prints them.
        low, high = later[f"{metric}_low"].round(4), later[f"{metric}_high"].round(4)
        within += later[f"published_{metric}"].between(low, high).sum()
    config = trained.configs[0]
    seeds = section.count(int(first.seeds), "seed")
    # The range of a single seed is a point.
    compared = "lie within the range of the seeds" if first.seeds > 1 else "are the same here, to their last digit"
    text = f"The printed log begins with a mean loss of {first.published_loss:.0f}, which only logits can reach. Here "
    text += f"the first epoch ends at {_tell_range(first.loss_low, first.loss_high, '.4g')}, above {CLIPPED} in "
    text += f"{exploded} of {seeds}. In epochs 2 and 3 the loss is "
    text += f"{_tell_range(later.loss_low.min(), later.loss_high.max(), '.4f')} and the AUC "
    text += f"{_tell_range(later.auc_low.min(), later.auc_high.max(), '.4f')}. "
    text += f"{within} of {len(METRICS) * len(later)} printed numbers {compared}. "
    return f"{text}Size: {section.describe_size(config)}, {config.precision}."


def _tell_range(low: float, high: float, form: str) -> str:
    """Return both ends of a range in words, or one number where they read the same."""
    ends = dict.fromkeys((format(low, form), format(high, form)))
    return " to ".join(ends)


@section.presents("log")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/printed_log.csv``."""
    trained = section.require(load_results(parameters, GROUP))
    table = results.write_table(parameters, "printed_log", tabulate(trained))
    return section.compose(
        draw(table, trained),
        table,
        conclude(table, trained),
        caption="Training metrics of each epoch, averaged while the weights change, as Keras prints them. The fourth "
        "epoch was interrupted after 426 of 647 steps. Logarithmic axis of the loss.",
        table_caption="The log as printed, and the lowest and highest value over our seeds, each with an order of its "
        "own.",
    )
