"""Figures and tables as notebooks show them."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure
from PIL import Image

from busi import display
from busi.config import StudyError


@display.style()
def drawn(size=(4, 3)) -> Figure:
    fig, axis = plt.subplots(figsize=size)
    axis.plot([0, 1, 2], [0.4, 0.3, 0.25], label="loss")
    axis.legend()
    return fig


def image(html) -> tuple[dict, bytes]:
    tag = BeautifulSoup(html.data, "html.parser").figure.img
    return tag.attrs, base64.b64decode(tag["src"].partition(",")[2])


def parsed(frame, **options) -> BeautifulSoup:
    return BeautifulSoup(display.table(frame, caption="Table 3.", **options).data, "html.parser")


def test_a_figure_carries_its_words_and_is_closed():
    fig = drawn()
    html = display.figure(fig, caption="Loss & epoch.", alt='"Falling" curve')
    attributes, svg = image(html)
    assert attributes["alt"] == '"Falling" curve'
    assert attributes["src"].startswith("data:image/svg+xml;base64,")
    assert (attributes["width"], attributes["height"]) == ("384", "288")  # 4 x 3 inches of 96 CSS pixels
    assert BeautifulSoup(html.data, "html.parser").figcaption.string == "Loss & epoch."
    assert b"<text" not in svg  # outlines: no browser needs the font
    assert not plt.fignum_exists(fig.number)


def test_a_figure_too_wide_for_a_telephone_brings_its_narrow_drawing():
    wide, narrow = drawn((9, 3)), drawn((4, 7))
    picture = BeautifulSoup(display.figure(wide, caption="C.", alt="A.", narrow=narrow).data, "html.parser").picture
    assert picture.source["media"] == "(max-width: 36rem)"
    svg = base64.b64decode(picture.source["srcset"].partition(",")[2])
    assert b'width="288pt" height="504pt"' in svg  # 4 x 7 inches of 72 points
    assert picture.img["width"] == "864"
    assert not plt.fignum_exists(narrow.number)


def test_a_raster_figure_has_two_pixels_a_css_pixel():
    attributes, webp = image(display.figure(drawn(), caption="C.", alt="A.", raster=True))
    assert Image.open(io.BytesIO(webp)).size == (768, 576)
    assert (attributes["width"], attributes["height"]) == ("384", "288")


@pytest.mark.parametrize("raster", [False, True])
def test_a_figure_gives_the_same_bytes_every_time_and_names_no_date(raster):
    first, second = (display.figure(drawn(), caption="C.", alt="A.", raster=raster).data for _ in range(2))
    assert first == second
    assert b"dc:date" not in image(display.figure(drawn(), caption="C.", alt="A."))[1]


def test_alternative_text_has_no_emphasis_marks():
    html = display.figure(drawn(), caption="C.", alt="**DICE** ends and **never predicts** a lesion.")
    assert image(html)[0]["alt"] == "DICE ends and never predicts a lesion."


def test_a_saved_figure_is_the_one_shown_and_is_closed(tmp_path):
    fig = drawn()
    file = tmp_path / "figures" / "loss.svg"
    display.save_figure(fig, file)
    assert not plt.fignum_exists(fig.number)  # Jupyter would show it without its words
    assert file.read_bytes() == image(display.figure(fig, caption="C.", alt="A."))[1]


@pytest.mark.parametrize("inches", [3.9, 6.4, 8.6])
def test_a_title_is_never_wider_than_its_figure(inches):
    text = "Conv2DTranspose − Nearest: WITH and without a twin in training, Dice is 0.504 to 0.641 on images never seen"
    with display.style():
        fig = plt.figure(figsize=(inches, 3))
        display.add_title(fig, text)
        fig.canvas.draw()
    written = fig._suptitle.get_window_extent()
    assert written.x0 >= 0 and written.x1 <= fig.bbox.width
    assert display.title(fig) == text


def test_rows_are_named_above_their_place_and_from_the_top_down():
    fig = drawn()
    axis = fig.axes[0]
    display.name_rows(axis, ["KLD", "BCE"])
    fig.canvas.draw()
    first, second = axis.texts
    # In pixels from the bottom of the figure.
    places = [axis.transData.transform((0, place))[1] for place in (0, 1)]
    assert places[0] > places[1]
    assert first.get_window_extent().y0 > places[0] > second.get_window_extent().y1
    assert second.get_window_extent().y0 > places[1]


def test_the_legend_of_a_figure_names_each_label_once_and_replaces_those_of_its_axes():
    with display.style():
        fig, axes = plt.subplots(2, 1)
        for axis in axes:
            axis.plot([0, 1], label="loss")
            axis.legend()
        axes[1].plot([1, 0], label="floor")
        display.add_legend(fig)
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["loss", "floor"]
    assert [axis.get_legend() for axis in axes] == [None, None]


def test_without_other_words_the_title_says_what_a_figure_shows():
    fig = drawn()
    fig.suptitle("Learned upsampling\nis not better")
    assert image(display.figure(fig, caption="C."))[0]["alt"] == "Learned upsampling is not better"


@pytest.mark.parametrize("missing", ["caption", "alt"])
def test_a_figure_without_words_is_refused(missing):
    fig = drawn()
    with pytest.raises(StudyError, match=f"^{missing}: empty"):
        display.figure(fig, **{"caption": "C.", "alt": "A."} | {missing: " "})
    plt.close(fig)


def test_the_style_cycles_through_colours_that_differ_in_grey_or_in_dashes():
    with display.style():
        cycle = list(plt.rcParams["axes.prop_cycle"])
    assert len({entry["color"] for entry in cycle}) == len({str(entry["linestyle"]) for entry in cycle}) == 7
    # WCAG 2.1: lines want 3:1 against their ground, which Okabe and Ito's two palest colours miss.
    assert min(contrast(entry["color"]) for entry in cycle[:4]) > 3


def test_the_style_lasts_for_one_drawing_and_can_be_applied_again():
    size = plt.rcParams["xtick.labelsize"]
    assert [drawn().axes[0].get_xticklabels()[0].get_fontsize() for _ in range(2)] == [11, 11]
    assert plt.rcParams["xtick.labelsize"] == size
    plt.close("all")


def test_the_palette_is_that_of_the_style():
    with display.style():
        colours = [entry["color"] for entry in plt.rcParams["axes.prop_cycle"]]
    assert colours == display.PALETTE
    roles = [display.OURS, display.FLOOR, display.PUBLISHED, display.TRUE, display.PREDICTED]
    assert len(set(roles)) == len(roles)
    assert set(roles) <= set(display.PALETTE)


def contrast(colour: str) -> float:
    """Contrast with white, by WCAG 2.1's relative luminance."""
    channels = np.array([int(colour.lstrip("#")[place : place + 2], 16) for place in (0, 2, 4)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05)


def test_a_table_shows_each_kind_of_value_as_a_reader_expects():
    frame = pd.DataFrame(
        {
            "method": ["a<b", "DICE"],
            "auc": [0.98504, None],
            "parameters": [22321090, 5],
            "predicts_lesion": [True, False],
            "seconds": [1234.56, 0.05],
        }
    )
    rows = parsed(frame, digits={"seconds": 1}).tbody.find_all("tr")
    assert [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in rows] == [
        ["a<b", "0.9850", "22,321,090", "yes", "1,234.6"],
        ["DICE", "–", "5", "no", "0.1"],
    ]


def test_a_table_is_sorted_by_all_digits_of_its_numbers_and_missing_values_apart():
    frame = pd.DataFrame(
        {"method": ["KLD", "BCE"], "loss": [0.14888, None], "images": [22321090, 5], "best": [True, False]}
    )
    cells = parsed(frame).tbody.find_all(["th", "td"])
    assert [cell.get("data-sort") for cell in cells] == [None, "0.14888", "22321090", None, None, "", "5", None]


def test_a_table_of_words_names_the_heading_of_each_cell():
    words = pd.DataFrame({"claim": ["KLD is best"], "our_answer": ["no"]})
    assert [cell.get("data-label") for cell in parsed(words).tbody.find_all(["th", "td"])] == ["claim", "our answer"]
    assert parsed(words).table["class"] == ["words"]
    numbers = parsed(words.assign(dice=0.5))
    assert not numbers.select("[data-label], .words")


def test_a_table_has_a_caption_headers_and_its_numbers_on_the_right():
    frame = pd.DataFrame({"method": ["KLD"], "published_auc": [0.987], "predicts_lesion": [True]})
    soup = parsed(frame, digits=2)
    assert soup.table.caption.string == "Table 3."
    assert [(th["scope"], th.string) for th in soup.find_all("th")] == [
        ("col", "method"),
        ("col", "published auc"),
        ("col", "predicts lesion"),
        ("row", "KLD"),
    ]
    assert [cell.string for cell in soup.select(".number")] == ["published auc", "0.99"]
    assert not soup.select("[style], style")
    assert soup.div["tabindex"] == "0"


def test_a_folded_table_opens_under_its_line():
    soup = parsed(pd.DataFrame({"method": ["KLD"]}), fold="Every run")
    assert soup.details.summary.string == "Every run"
    assert not soup.details.has_attr("open")
    assert soup.details.table.caption.string == "Table 3."
    assert not parsed(pd.DataFrame({"method": ["KLD"]})).select("details")


def test_a_named_index_heads_the_rows_and_a_nameless_one_must_be_numbers():
    frame = pd.DataFrame({"auc": [0.9]}, index=pd.Index(["KLD"], name="loss"))
    assert [th.string for th in parsed(frame).find_all("th")] == ["loss", "auc", "KLD"]
    with pytest.raises(StudyError, match="has no name"):
        parsed(frame.rename_axis(None))


def test_digits_of_an_unknown_column_are_refused():
    with pytest.raises(StudyError, match=r"unknown column 'acu'; the table has auc"):
        parsed(pd.DataFrame({"auc": [0.9]}), digits={"acu": 2})
