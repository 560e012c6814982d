"""The printed log: the only training log that was published, beside the same training here from several seeds.

The log is of the public class's defaults, Adam at 0.01 and full width, and was interrupted in its fourth epoch. It
begins with a mean loss of 1602, which is impossible for clipped probabilities: the published cross-entropy was computed
from logits.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from busi import display, results
from busi.config import Parameters
from busi.dataset import arrays
from busi.dataset.catalog import Catalog
from busi.mechanisms import section
from busi.published import METRICS, published_log
from busi.results import Results
from busi.scoring import blind
from busi.study import BLIND_ORDERS, find_group, load_results, published_targets_config

GROUP = "mechanisms/log"

CLIPPED = 32
"""Bound of the cross-entropy of one channel for probabilities clipped to [1e-7, 1 - 1e-7]: -2 ln 1e-7, for a target of
almost 2, which the mirror makes. The mean over both channels stays below it."""


def measure_biases(parameters: Parameters) -> pd.DataFrame:
    """Return what two output biases that see no image score in each epoch of the log.

    Returns:
        `epoch`, `order` of the images ("mixed" or "by class"), and as `busi.scoring.blind.find_ranges`.
    """
    targets_config = published_targets_config(parameters)
    log = find_group(parameters, GROUP).configs[0]

    def make(catalog: Catalog) -> pd.DataFrame:
        targets = arrays.published_arrays(catalog, targets_config).targets
        images = len(targets)
        orders = {"mixed": blind.draw_orders(images, range(BLIND_ORDERS)), "by class": np.arange(images)[None]}
        rows = []
        for epoch in range(1, log.epochs + 1):
            # Only a last epoch is scored, so each epoch is made the last in turn; only the log's own is cut short.
            cut = log.last_steps if epoch == log.epochs else 0
            config = log.model_copy(update={"epochs": epoch, "last_steps": cut})
            for order, drawn in orders.items():
                scores = blind.train_biases(targets, drawn, config)
                rows.append({"epoch": epoch, "order": order} | blind.find_ranges(scores))
        return pd.DataFrame(rows)

    depends = [log.model_dump_json()]
    return results.measure(parameters, "mechanisms/log_biases", make, depends=depends, code=(blind, arrays))


def tabulate(trained: Results, biases: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each epoch of the log.

    Args:
        trained: Results of the runs.
        biases: As `measure_biases`.

    Returns:
        `epoch`; `published_loss`, `published_accuracy` and `published_auc`; the number of `seeds`, and our lowest and
        highest value over them, e.g. `loss_low` and `loss_high`; those of the biases over mixed orders, e.g.
        `biases_loss_low`.
    """
    epochs = trained.epochs.groupby("epoch")
    ours = pd.DataFrame({"seeds": epochs.size()})
    for metric in METRICS:
        ours[f"{metric}_low"] = epochs[metric].min()
        ours[f"{metric}_high"] = epochs[metric].max()
    published = published_log().rename(columns={metric: f"published_{metric}" for metric in METRICS})
    mixed = biases[biases.order == "mixed"].set_index("epoch").drop(columns=["order", "orders"]).add_prefix("biases_")
    return published.merge(ours.reset_index(), on="epoch", how="left").merge(
        mixed.reset_index(), on="epoch", how="left"
    )


@display.style()
def draw(table: pd.DataFrame, trained: Results) -> Figure:
    """Draw loss, accuracy and AUC of each epoch: published, and one line for each seed."""
    fig, axes = plt.subplots(len(METRICS), 1, figsize=(display.WIDTH, 6.4), sharex=True)
    for ax, metric in zip(axes, METRICS, strict=True):
        look = {"units": "run", "estimator": None, "marker": "o", "color": display.OURS}
        sns.lineplot(trained.epochs, x="epoch", y=metric, ax=ax, **look)
        ax.plot(table.epoch, table[f"published_{metric}"], "*", color=display.PUBLISHED, markersize=11)
        ax.set(xlabel="Epoch", ylabel={"auc": "AUC"}.get(metric, metric.capitalize()), xticks=table.epoch)
    # The loss of the first epoch is a thousand times higher than the others.
    axes[0].set_yscale("log")
    display.add_title(fig, "The printed log (stars) and the same training here (lines, one a seed)")
    return fig


def conclude(table: pd.DataFrame, trained: Results, biases: pd.DataFrame) -> str:
    """Return whether the first loss explodes here as printed, and how many later numbers our runs and biases reach.

    Args:
        table: As `tabulate`.
        trained: Results of the runs.
        biases: As `measure_biases`.
    """
    first = table.iloc[0]
    later = table.iloc[1:]
    config = trained.configs[0]
    exploded = (trained.epochs[trained.epochs.epoch == 1].loss > CLIPPED).sum()
    seeds = display.count(int(first.seeds), "seed")
    verdict = "above" if exploded == first.seeds else "not always above" if exploded else "below"
    explosion = _tell_range(first.loss_low, first.loss_high, ".4g")
    loss = _tell_range(later.loss_low.min(), later.loss_high.max(), ".4f")
    auc = _tell_range(later.auc_low.min(), later.auc_high.max(), ".4f")
    printed = later.set_index("epoch")
    numbers = len(printed) * len(METRICS)
    within = _count_within(printed, printed)
    # The range of a single seed is a point.
    compared = "lie within the range of the seeds" if first.seeds > 1 else "are the same here, to their last digit"
    by_order = {order: _count_within(printed, rows.set_index("epoch")) for order, rows in biases.groupby("order")}
    mixed = by_order["mixed"]
    by_class = by_order["by class"]
    unseeing = ""
    if mixed == numbers and by_class < numbers:
        unseeing = ": the images most likely came mixed, and the numbers need no look at them"
    trained_alike = (
        f"The printed log begins with a mean loss of {first.published_loss:.0f}, which only logits can reach. "
        f"Here the first epoch has a mean loss of {explosion} ({seeds}), {verdict} {CLIPPED}, the bound for clipped "
        "probabilities. "
        f"In the epochs after it the loss is {loss} and the AUC {auc}. "
        f"{within} of their {numbers} printed numbers {compared}."
    )
    blindly = (
        f"Two output biases that see no image, trained with the same optimizer, have {mixed} of these {numbers} "
        f"numbers within their range over {BLIND_ORDERS} mixed orders of the images, and {by_class} with the images "
        f"sorted by class{unseeing}."
    )
    return f"{trained_alike} {blindly} Size: {section.describe_size(config)}, {config.precision}."


def _count_within(printed: pd.DataFrame, ranges: pd.DataFrame) -> int:
    """Return how many printed numbers lie in the range of their epoch, both rounded to four digits as Keras prints."""
    within = 0
    for metric in METRICS:
        low, high = (ranges[f"{metric}_{end}"].reindex(printed.index).round(4) for end in ("low", "high"))
        within += int(printed[f"published_{metric}"].between(low, high).sum())
    return within


def _tell_range(low: float, high: float, form: str) -> str:
    """Return both ends of a range in words, or one number if they are formatted alike."""
    ends = dict.fromkeys((format(low, form), format(high, form)))
    return " to ".join(ends)


@section.presents("log")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/printed_log.csv``."""
    trained = section.require(load_results(parameters, GROUP))
    biases = measure_biases(parameters)
    table = results.write_table(parameters, "printed_log", tabulate(trained, biases))
    return section.compose(
        draw(table, trained),
        table,
        conclude(table, trained, biases),
        caption="Training metrics of each epoch, averaged while the weights change, as Keras prints them. The fourth "
        "epoch was interrupted after 426 of 647 steps. Logarithmic axis of the loss.",
        table_caption="The log as printed; the lowest and highest value over our seeds, each with its own order of the "
        f"images; and those of two output biases over {BLIND_ORDERS} orders.",
    )
