"""Other readings of the public code: rows under the other optimizer, in class order, and in a network twice as wide.

The public class's default optimizer is Adam, and the cells of most rows name none; but the paper's baseline equals its
SGD row. Each reading is trained just as the published row is, except for what it changes.
"""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from busi import display, results
from busi.config import Parameters
from busi.mechanisms import section
from busi.published import distinct_rows
from busi.results import Results
from busi.scoring.fates import FATES, count_fates
from busi.study import load_results

GROUP = "mechanisms/readings"


def tabulate(trained: Results) -> pd.DataFrame:
    """Return one row for each run.

    Returns:
        `reading`, `seed`, `epochs`, `filters`; `loss`, `accuracy` and `auc` of the last epoch, averaged while the
        weights change; `fate`; `published_loss` and `published_auc` of the row that the reading is of, if its name
        begins with that of a row.
    """
    runs = trained.runs
    table = runs[["variant", "seed", "epochs", "training_loss", "training_accuracy", "training_auc", "fate"]]
    table = table.rename(columns=lambda name: name.removeprefix("training_")).rename(columns={"variant": "reading"})
    table.insert(3, "filters", [config.base_filters for config in trained.configs])
    rows = distinct_rows().set_index("row")
    # "KLD, Adam" is a reading of the row "KLD".
    named = table.reading.str.partition(", ")[0]
    for metric in ("loss", "auc"):
        table[f"published_{metric}"] = named.map(rows[metric])
    return table.reset_index(drop=True)


@display.style()
def draw(table: pd.DataFrame) -> Figure:
    """Draw AUC against loss of each run: colours are readings, markers are fates."""
    fig, ax = plt.subplots(figsize=(display.WIDTH, 4.6))
    order = [fate for fate in FATES if fate in set(table.fate)]
    # AUC as well as loss: KLD and DICE have losses of their own, whereas AUC means the same in all readings.
    sns.scatterplot(table, x="loss", y="auc", hue="reading", style="fate", style_order=order, s=80, ax=ax)
    ax.set(xlabel="Training loss of the last epoch", ylabel="AUC")
    display.add_legend(fig, 2)
    display.add_title(fig, f"What became of the other readings: {count_fates(table.fate)}")
    return fig


def conclude(table: pd.DataFrame, trained: Results) -> str:
    """Return what became of each reading."""
    parts = [f"{reading}: {count_fates(runs.fate)}" for reading, runs in table.groupby("reading", sort=False)]
    first = trained.configs[0]
    return f"{'; '.join(parts)} ({first.image_size} pixels, {display.count(first.epochs, 'epoch')} planned)."


@section.presents("readings")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/readings.csv``."""
    trained = section.require(load_results(parameters, GROUP))
    table = results.write_table(parameters, "readings", tabulate(trained))
    return section.compose(
        draw(table),
        table,
        conclude(table, trained),
        caption="Training loss and AUC of the last epoch, averaged while the weights change.",
        table_caption="Each reading's run, what became of it, and the published row it is a reading of.",
    )
