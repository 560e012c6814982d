"""When trainings leave the plateau and pass the published losses, on curves made by hand."""

from dataclasses import replace
from itertools import pairwise

import pandas as pd

from busi import results
from busi.config import RunConfig
from busi.mechanisms import curve
from busi.results import empty_results
from busi.study import find_group

FLOORS = {"bce": 0.3066, "kld": 0.3090, "dice_loss": 0.0916}


def train(**losses: list[list[float]]):
    """Make results from: variant -> the losses of each seed, epoch by epoch."""
    runs, rows = [], []
    for variant, seeds in losses.items():
        for seed, values in enumerate(seeds):
            head = {"variant": variant, "run": f"{variant} {seed}", "fold": 0, "seed": seed}
            config = RunConfig(base_filters=16, epochs=len(values), seed=seed)
            runs.append(head | {"key": "k", "config": config.model_dump_json()})
            rows += [head | {"epoch": epoch, "loss": loss} for epoch, loss in enumerate(values, start=1)]
    return replace(empty_results(), runs=pd.DataFrame(runs), epochs=pd.DataFrame(rows))


def test_epochs_of_leaving_and_passing_by_hand():
    """0.95 of 0.3066 is 0.29127, of 0.3090 0.29355."""
    trained = train(
        Upsampling2D=[[0.31, 0.2914, 0.2912, 0.25, 0.2269, 0.1489], [0.31, 0.30, 0.30, 0.30, 0.30, 0.30]],
        KLD=[[0.31, 0.2935, 0.26, 0.20, 0.17, 0.16]],
    )
    table = curve.tabulate(trained, FLOORS)
    assert table.left_plateau.fillna(0).tolist() == [3, 0, 2]
    assert table.passed_BCE.fillna(0).tolist() == [5, 0, 0]
    assert table["passed_SGD + decaying LR"].fillna(0).tolist() == [2, 0, 0]
    # A loss of another kind is not passed, however low it is.
    assert table.passed_KLD.isna().all()
    lower = curve.tabulate(train(Upsampling2D=[[0.31, 0.14]], KLD=[[0.31, 0.14]]), FLOORS)
    assert lower.passed_KLD.fillna(0).tolist() == [0, 2]


def test_the_published_losses_that_are_passed_are_those_below_the_constants():
    losses = curve.published_losses()
    assert losses.to_dict() == {
        "Adam + decaying LR": 0.2973,
        "SGD + decaying LR": 0.2970,
        "BCE": 0.2269,
        "Upsampling2D": 0.1877,
        "Conv2DTranspose": 0.1758,
        "KLD": 0.1489,
    }
    assert losses.is_monotonic_decreasing


def test_the_conclusion_tells_the_tables_apart_in_epochs():
    trained = train(Upsampling2D=[[0.31, 0.29, 0.2, 0.14], [0.31, 0.30, 0.28, 0.1]])
    text = curve.conclude(curve.tabulate(trained, FLOORS), trained)
    assert text.startswith("2 of 2 runs have left the plateau, at epoch 2 to 3. ")
    # 0.2269 and 0.1758 are passed in epochs 3 and 4, and both in 4.
    assert "rows BCE and Conv2DTranspose are the widest apart: 0 to 1 epochs of one training." in text
    assert "300 pixels, 16 filters, 4 epochs, 2 seeds" in text
    flat = train(KLD=[[0.31, 0.30]])
    assert curve.conclude(curve.tabulate(flat, FLOORS), flat) == "No run has left the plateau in 2 epochs."


def test_the_figure_counts_the_rows_that_all_runs_pass_and_no_two_names_overlap():
    fig = curve.draw(train(Upsampling2D=[[0.31, 0.2, 0.1], [0.31, 0.2, 0.18]], KLD=[[0.31, 0.14]]))
    # Of the rows with BCE, 0.1758 is not reached by the second run; 0.1877, 0.2269, 0.2970 and 0.2973 are.
    title = fig.get_suptitle().replace("\n", " ")
    assert title == "Published losses of the same kind (stars) that all runs reach: Upsampling2D 4 of 5, KLD 1 of 1"
    (ax,) = fig.axes
    fig.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
    assert len(boxes) == 6
    assert all(lower.y1 <= upper.y0 + 1 for lower, upper in pairwise(boxes))


def test_the_runs_are_twice_as_long_as_published(laptop):
    runs = find_group(laptop, "mechanisms/curve").configs
    assert {(run.loss, run.seed) for run in runs} == {(loss, seed) for loss in ("bce", "kld") for seed in (0, 1, 2)}
    assert {(run.epochs, run.base_filters, run.image_size, run.order) for run in runs} == {(150, 16, 300, "mixed")}


def test_the_section_writes_epochs_csv(nothing_measured, monkeypatch):
    monkeypatch.setattr(curve, "load_results", lambda *arguments: train(KLD=[[0.31, 0.2, 0.1]]))
    monkeypatch.setattr(curve, "measure_floors", lambda parameters: FLOORS)
    curve.show(nothing_measured)
    assert results.read_table(nothing_measured, "epochs").left_plateau.tolist() == [2]
