"""What the figures draw: data, axes, floors."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from matplotlib.patches import Rectangle

from busi import display
from busi.published import distinct_rows, published_network
from busi.report import figures
from busi.results import empty_results, join_results


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def drawn(fig) -> list:
    return drawn_in(fig.axes[0])


def drawn_in(ax) -> list:
    """The lines of a panel that hold points: seaborn adds empty ones for its legend."""
    return [line for line in ax.lines if len(line.get_xdata())]


def legend(fig) -> list[str]:
    return [text.get_text() for text in fig.legends[0].get_texts()]


# All figures


def test_figures_are_drawn_in_the_study_s_style_and_leave_no_trace_of_it():
    before = plt.rcParams["font.size"], plt.rcParams["axes.prop_cycle"]
    fig = figures.hash_distances(pd.DataFrame({"distance": [0, 1], "pairs": [17, 3]}), 8)
    assert same_color(fig.axes[0].patches[0].get_facecolor(), display.PALETTE[0])
    assert not fig.axes[0].spines["top"].get_visible()
    assert (plt.rcParams["font.size"], plt.rcParams["axes.prop_cycle"]) == before


# Figures 2 to 10


def test_loss_curve_has_the_paper_s_axes_whatever_is_drawn(make_run):
    for epochs in (empty_results().epochs, make_run("KLD", losses=(1.7, 0.9)).epochs):
        fig = figures.loss_curves([panel(epochs), panel(epochs), panel(epochs)])
        for ax in fig.axes[:3]:
            assert (ax.get_xlim(), ax.get_ylim(), ax.get_title("left")) == ((0, 75), (0, 0.4), "KLD: 1 dead")
        lower = fig.axes[2]
        assert (lower.get_xlabel(), lower.get_ylabel()) == ("Epoch", "Training loss")


def panel(epochs: pd.DataFrame) -> dict:
    row = {
        "floor_loss": 0.3066,
        "biases_loss_low": 0.3067,
        "biases_loss_high": 0.3071,
        "mask_loss": 0.2393,
        "n_runs": 1,
        "fates": "1 dead",
    }
    return {"title": "KLD: 1 dead", "epochs": epochs, "row": row | {"published_loss": 0.1877}}


def test_loss_curve_draws_each_run_and_the_published_end_against_predictors_that_never_look(make_run):
    first = make_run("KLD", losses=(0.31, 0.25, 0.2, 0.19, 0.18))
    second = make_run("KLD", seed=7, losses=(0.33, 0.3))
    fig = figures.loss_curves([panel(join_results([first, second]).epochs)])
    named = set(legend(fig))
    blind = {"best constant", "two biases, 25 orders", "mean mask"}
    assert named == {"ours, one line a run", "published, epoch 75"} | blind
    one, two, floor, mask, end = drawn(fig)
    np.testing.assert_array_equal(one.get_xydata().T, [[1, 2, 3, 4, 5], [0.31, 0.25, 0.2, 0.19, 0.18]])
    np.testing.assert_array_equal(two.get_xydata().T, [[1, 2], [0.33, 0.3]])
    assert (list(floor.get_ydata()), list(mask.get_ydata())) == ([0.3066, 0.3066], [0.2393, 0.2393])
    (band,) = fig.axes[0].patches
    assert (band.get_y(), band.get_height()) == pytest.approx((0.3067, 0.0004))
    assert end.get_xydata().tolist() == [[75, 0.1877]]


def test_the_title_over_the_curves_counts_rows_by_their_fates_and_not_by_their_losses():
    """SGD with decay ends below the best constant, and is on the plateau."""
    epochs = empty_results().epochs
    panels = [panel(epochs) for _ in range(4)]
    # Read from a file, an empty text is NaN.
    fates = {"1 learned, 1 plateau": 2, "1 falling": 1, "1 plateau": 1, np.nan: 0}
    for each, (told, runs) in zip(panels, fates.items(), strict=True):
        each["row"] |= {"fates": told, "n_runs": runs, "loss": 0.2971}
    titles = [display.title(figures.loss_curves(panels[first:])) for first in range(4)]
    assert titles == [
        "Runs of 2 of the 3 rows trained here are falling or have learned",
        "Runs of 1 of the 2 rows trained here are falling or have learned",
        "Runs of none of the 1 rows trained here are falling or have learned",
        "No row has been trained here yet",
    ]


def test_a_run_of_a_single_epoch_can_be_seen(make_run):
    single = drawn(figures.loss_curves([panel(make_run("KLD", losses=(0.3,)).epochs)]))[0]
    assert single.get_marker() == "o"


# Rows against predictors that never look


def test_rows_are_listed_from_the_top_with_published_ours_and_blind_at_one_height():
    rows = distinct_rows().assign(reached_by="the mean mask").rename(columns=lambda name: f"published_{name}")
    rows = rows.rename(columns={f"published_{name}": name for name in ("row", "reached_by")})
    rows.loc[0, "reached_by"] = "none"
    for metric, value in (("auc", 0.95), ("loss", 0.2)):
        rows[metric] = [value, *[float("nan")] * 8]
        rows[f"{metric}_low"], rows[f"{metric}_high"] = rows[metric] - 0.01, rows[metric] + 0.02
        rows[f"biases_{metric}_low"], rows[f"biases_{metric}_high"], rows[f"mask_{metric}"] = 0.30, 0.31, 0.24
    rows["n_runs"] = [1, *[0] * 8]
    fig = figures.rows_against_blind(rows)
    left, right = fig.axes
    assert "ours, one run" in fig.legends[0].get_texts()[-1].get_text()
    several = figures.rows_against_blind(rows.assign(n_runs=3))
    assert "ours, range of runs" in several.legends[0].get_texts()[-1].get_text()
    assert display.title(fig) == "1 of 9 published rows has a higher AUC than every blind predictor tried"
    assert [label.get_text() for label in left.get_yticklabels()] == rows.row.tolist()
    assert left.get_ylim()[0] > left.get_ylim()[1]
    for ax, metric, ours in ((left, "auc", 0.95), (right, "loss", 0.2)):
        mask, published, own = ax.lines[:3]
        assert mask.get_xdata().tolist() == [0.24] * 9
        assert published.get_xdata().tolist() == rows[f"published_{metric}"].tolist()
        assert published.get_ydata().tolist() == mask.get_ydata().tolist() == list(range(9))
        assert own.get_xdata()[0] == ours
        assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == [(0.30, pytest.approx(0.01))] * 9
    narrow = figures.rows_against_blind(rows, narrow=True)
    # On a telephone the names stand in the figure, above the marks of their rows.
    assert [text.get_text() for text in narrow.axes[0].texts] == rows.row.tolist()
    assert all(text.get_position()[1] < place for place, text in enumerate(narrow.axes[1].texts))


# Verdicts


def test_differences_are_drawn_below_their_names_with_a_colour_for_each_size():
    table = pd.DataFrame({"label": ["A − B", "A − C", "A − B"], "size": ["small", "small", "large"]})
    table = table.assign(difference=[0.1, -0.1, 0.2], low=[0.05, -0.2, 0.1], high=[0.2, 0.0, 0.25])
    fig = figures.differences(table, margin=0.02, title="A is better")
    sizes = figures.differences(
        table.replace({"small": "64 pixels, 8 filters", "large": "128 pixels, 8 filters"}), margin=0.02, title="A"
    )
    sizes.canvas.draw()
    assert sizes.legends[0].get_window_extent().x1 <= sizes.bbox.x1
    ax = fig.axes[0]
    assert [text.get_text() for text in ax.texts] == ["A − B", "A − C"]
    small, large = ax.containers
    assert (small.get_label(), large.get_label()) == ("small", "large")
    assert small[0].get_xdata().tolist() == [0.1, -0.1]
    ends = [segment[:, 0].tolist() for segment in small[2][0].get_segments()]
    np.testing.assert_allclose(ends, [[0.05, 0.2], [-0.2, 0.0]])
    assert large[0].get_ydata()[0] > small[0].get_ydata()[0]
    assert not same_color(small[0].get_color(), large[0].get_color())
    assert (ax.patches[0].get_x(), ax.patches[0].get_width()) == (-0.02, 0.04)


def test_ranks_are_bars_with_the_share_asked_for():
    ranked = pd.DataFrame({"size": "small", "accuracy": [True, True, True, False], "loss": [True, False, False, False]})
    fig = figures.ranks(ranked, {"accuracy": "Accuracy", "loss": "Loss"}, telling=0.95, title="They do not rank")
    ax = fig.axes[0]
    assert [round(bar.get_width(), 3) for bar in ax.containers[0]] == [0.75, 0.25]
    assert list(ax.lines[-1].get_xdata()) == [0.95, 0.95]
    assert [text.get_text() for text in ax.texts] == ["Accuracy", "Loss"]
    assert display.title(fig) == "They do not rank"


# Outlines


def test_outlines_are_drawn_case_by_case_with_their_dice_and_a_title_that_follows_it():
    corners = pd.DataFrame({"x": [-0.6, 0.6, 0.6, -0.6], "y": [-0.6, -0.6, 0.6, -0.6], "piece": 0})
    tables = []
    for variant, scores in {"KLD": (0.9, 0.7, 0.0), "BCE": (0.8, 0.5, 0.1)}.items():
        for case, dice in zip(("best", "median", "worst"), scores, strict=True):
            truth = corners.assign(line="truth", variant=variant, case=case, dice=dice)
            tables.append(truth)
            if dice:
                tables += [truth.assign(line="prediction", x=corners.x / 2), truth.assign(line="prediction", piece=1)]
    fig = figures.outlines(pd.concat(tables, ignore_index=True))
    assert [ax.get_title("left") for ax in fig.axes] == [
        *("best: Dice 0.90", "median: Dice 0.70", "worst: Dice 0.00"),
        *("best: Dice 0.80", "median: Dice 0.50", "worst: Dice 0.10"),
    ]
    assert [ax.get_ylabel() for ax in fig.axes] == ["KLD", "", "", "BCE", "", ""]
    # Of each line all its pieces, on their own; a prediction that marks nothing has none.
    assert [len(drawn_in(ax)) for ax in fig.axes] == [3, 3, 1, 3, 3, 3]
    truth, prediction, other = drawn_in(fig.axes[0])
    np.testing.assert_array_equal(truth.get_xydata(), corners[["x", "y"]])
    assert same_color(prediction.get_color(), other.get_color())
    assert not same_color(prediction.get_color(), truth.get_color())
    # Rows count downwards.
    assert fig.axes[0].get_ylim() == (1, -1)
    assert display.title(fig) == "Median cases have Dice 0.50 to 0.70; 1 of 2 miss their worst lesion"
    # A case without outlines, whose lesion is too small to be seen, leaves its place empty.
    seen = pd.concat(tables, ignore_index=True).query("case != 'worst'")
    without = figures.outlines(seen)
    assert [len(drawn_in(ax)) for ax in without.axes] == [3, 3, 0, 3, 3, 0]
    assert without.axes[2].get_title("left") == "worst: not drawn"


# Figure 1


def test_architecture_has_a_box_a_block_as_large_as_its_feature_map():
    # Two unpadded convolutions take four pixels, pooling halves, upsampling doubles: by hand from 300.
    sizes = [296, 144, 68, 30, 11, 18, 32, 60, 116]
    filters = [64, 128, 256, 512, 512, 256, 128, 64, 64]
    blocks = published_network()["blocks"]
    ax = figures.architecture(blocks, title="U-Net").axes[0]
    assert [text.get_text() for text in ax.texts] == [
        f"{size}²\n{f} filters" for size, f in zip(sizes, filters, strict=True)
    ]
    boxes = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    heights, widths = [box.get_height() for box in boxes], [box.get_width() for box in boxes]
    assert np.argsort(heights).tolist() == np.argsort(sizes).tolist()
    assert widths[0] == widths[-1] < widths[1] < widths[2] < widths[3]
    centres = [(box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2) for box in boxes]
    assert np.round(centres, 9).tolist() == [
        *([0, 0], [1, -1], [2, -2], [3, -3]),
        [4, -4],
        *([5, -3], [6, -2], [7, -1], [8, 0]),
    ]
    # Eight steps of computation, four skips.
    assert len(ax.patches) - len(boxes) == 8 + 4


# The data


def test_lesion_sizes_leave_normals_out_and_name_the_medians():
    table = pd.DataFrame(
        {
            "image_class": ["benign"] * 3 + ["malignant"] * 2 + ["normal"],
            "lesion_share": [0.01, 0.02, 0.09, 0.1, 0.2, 0.0],
        }
    )
    ax = figures.lesion_sizes(table).axes[0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "benign: median 2.0% of 3 images",
        "malignant: median 15.0% of 2 images",
    ]
    assert ax.get_xscale() == "log"
    assert display.title(ax.figure) == "Half of the lesions cover less than 9.0% of their image"
    assert sum(bar.get_height() for bar in ax.patches) == 5


def test_the_mean_mask_is_drawn_as_the_image_lies():
    """The first row is the top of the image."""
    shares = pd.DataFrame(np.zeros((4, 4)))
    shares.loc[0, 3] = 0.5
    ax, bar = figures.mean_mask(shares).axes
    np.testing.assert_array_equal(ax.images[0].get_array(), shares)
    assert ax.get_ylim() == (1, 0)
    assert ax.images[0].get_clim() == (0, 0.5)
    assert bar.get_ylabel() == "Share of lesion images"
    assert display.title(ax.figure) == "One place is lesion in 50% of the lesion images"


def test_examples_outline_lesions_and_nothing_on_a_normal_image():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    inside = np.zeros((3, 4), bool)
    inside[1, 1:3] = True
    fig = figures.examples([pixels, pixels], [inside, np.zeros_like(inside)], ["benign (1)", "normal (1)"])
    lesion, normal = fig.axes
    np.testing.assert_array_equal(lesion.images[0].get_array(), pixels)
    assert lesion.images[0].get_clim() == (0, 255)
    assert lesion.get_title(loc="left") == "benign (1)\n4 × 3 pixels"
    outline = np.concatenate([path.vertices for contours in lesion.collections for path in contours.get_paths()])
    # Half way between the pixels inside and their neighbours.
    assert (outline[:, 0].min(), outline[:, 0].max()) == (0.5, 2.5)
    assert (outline[:, 1].min(), outline[:, 1].max()) == (0.5, 1.5)
    assert len(normal.collections) == 0


def test_hash_distances_are_bars_with_the_bound_between_two():
    fig = figures.hash_distances(pd.DataFrame({"distance": [0, 1, 8, 9], "pairs": [17, 3, 2, 5]}), 8)
    ax = fig.axes[0]
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in ax.patches] == [
        *((0, 17), (1, 3), (8, 2), (9, 5)),
    ]
    assert ax.lines[0].get_xdata()[0] == 8.5
    assert ax.get_yscale() == "log"
    assert display.title(fig) == "22 of 27 pairs of images have nearly equal hashes"


# Held out


def held_out():
    return pd.DataFrame(
        {
            "variant": ["KLD", "DICE", "BCE", "Background everywhere", "Lesion everywhere", "Darkest blob"],
            "dice": [0.7, np.nan, 0.6, 0.0, 0.16, 0.37],
            "dice_low": [0.65, np.nan, 0.5, 0.0, 0.15, 0.34],
            "dice_high": [0.72, np.nan, 0.68, 0.0, 0.17, 0.4],
            "n_runs": [5, 0, 1, 0, 0, 0],
            "n_images": [647, 0, 130, 647, 647, 647],
        }
    )


def whiskers(ax):
    """Ends of the intervals, from the top row down."""
    return [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]


def test_networks_are_points_with_intervals_and_untrained_predictors_lines():
    fig = figures.dice(held_out())
    ax = fig.axes[0]
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0.7, 0], [0.6, 1]])
    np.testing.assert_allclose(whiskers(ax), [[0.65, 0.72], [0.5, 0.68]])
    assert [text.get_text() for text in ax.texts] == ["KLD", "BCE"]
    bottom, top = ax.get_ylim()
    assert bottom > top  # the first row is the top one
    lines = {line.get_label(): line.get_xdata()[0] for line in ax.lines if not line.get_label().startswith("_")}
    assert lines == {"Background everywhere": 0.0, "Lesion everywhere": 0.16, "Darkest blob": 0.37}
    assert ax.get_xlabel() == "Dice on held-out images (mean, 95 % interval)"
    assert display.title(fig) == "Better than every untrained predictor (perfect mask aside): 2 of 2 variants"
    worse = figures.dice(held_out().assign(dice_low=0.36))
    # An interval that holds the darkest blob's 0.37 is not better than it.
    assert display.title(worse) == "Better than every untrained predictor (perfect mask aside): none of 2 variants"


def test_the_three_untrained_predictors_can_be_told_apart():
    lines = figures.dice(held_out()).axes[0].lines[-3:]
    assert len({line.get_color() for line in lines}) == len({line.get_linestyle() for line in lines}) == 3


def test_a_figure_without_any_run_shows_the_untrained_predictors():
    ax = figures.dice(held_out().query("n_runs == 0")).axes[0]
    assert len(ax.lines[0].get_xdata()) == 0
    assert [line.get_xdata()[0] for line in ax.lines[-3:]] == [0.0, 0.16, 0.37]
    assert len(ax.get_yticks()) == 0


def test_dice_by_lesion_draws_each_lesion_at_its_size_in_percent():
    lesions = pd.DataFrame({"image_class": ["benign", "malignant"], "lesion_share": [0.01, 0.2], "dice": [0.5, 0.7]})
    fig = figures.dice_by_lesion(lesions)
    points = fig.axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(points, [[1, 0.5], [20, 0.7]])
    assert legend(fig) == ["benign", "malignant"]
    assert display.title(fig) == "The smaller half of the lesions has Dice 0.50, the larger half 0.70"
    assert fig.axes[0].get_xscale() == "log"


# The lab


def test_a_training_is_drawn_step_by_step_and_its_dice_epoch_by_epoch():
    steps = pd.DataFrame(
        {"epoch": [0.5, 1.0, 1.5, 2.0], "loss": [0.5, 0.4, 0.3, 0.2], "validation_dice": [None, 0.2, None, 0.3]}
    )
    left, right = figures.training({"lr 1": steps, "lr 2": steps.assign(loss=0.1)}).axes
    first, second = (line for line in left.lines if len(line.get_xdata()))
    np.testing.assert_array_equal(first.get_xydata(), steps[["epoch", "loss"]])
    assert set(second.get_ydata()) == {0.1}
    dice = next(line for line in right.lines if len(line.get_xdata()))
    np.testing.assert_array_equal(dice.get_xydata(), [[1, 0.2], [2, 0.3]])
    assert left.get_legend() is None  # one legend below both panels
    assert [text.get_text() for text in left.figure.legends[0].get_texts()] == ["lr 1", "lr 2"]
    # Before the end of the first epoch there is no Dice yet.
    _, early = figures.training({"lr 1": steps[:1].astype({"validation_dice": float})}).axes
    assert drawn_in(early) == []


# Networks' answers


@pytest.mark.parametrize(("number", "rows"), [(1, 1), (2, 2)])
def test_the_map_of_a_case_alone_is_beside_its_image_and_of_several_below(number, rows):
    square = np.zeros((20, 20), bool)
    square[5:9, 5:9] = True
    case = SimpleNamespace(pixels=square * 9, truth=square, predicted=~square, probability=square * 0.5)
    fig = figures.cases(dict(zip("AB"[:number], [case] * number, strict=True)))
    image, shown_map = fig.axes[0], fig.axes[number]
    assert image.get_subplotspec().get_gridspec().nrows == rows
    fig.canvas.draw()
    if rows == 1:
        assert shown_map.get_position().y1 == image.get_position().y1
    assert (shown_map.images[0].get_array().max(), shown_map.images[0].get_clim()) == (0.5, (0, 1))
