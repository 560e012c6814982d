"""Figures and tables for notebooks, as self-contained HTML with caption and alternative text; the style of figures."""

import base64
import io
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import jinja2
import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from busi.config import StudyError

_STYLE = matplotlib.rc_params_from_file(Path(__file__).with_name("study.mplstyle"), use_default_template=False)

PALETTE = [look["color"] for look in _STYLE["axes.prop_cycle"]]
"""Colours of the style, in the order in which variants are given them."""

BLUE, RED, GREEN, PINK, SKY, ORANGE, BLACK = PALETTE
GREY = _STYLE["axes.edgecolor"]

# Colours by role, so that each means the same in every figure.
OURS = BLUE
PUBLISHED = BLACK
FLOOR = RED
TRUE = ORANGE
PREDICTED = SKY

FLOOR_LINE = {"color": FLOOR, "linestyle": "--", "linewidth": 1.5}
"""Keyword arguments with which matplotlib draws the line of a floor."""

WIDTH = _STYLE["figure.figsize"][0]
"""Width of a figure in inches, the largest at which text is still legible on a telephone.

Panels are therefore placed one below the other, and the names of rows above the rows.
"""

# An inch in CSS, so that a figure has the same size as SVG and as a raster image.
_PIXELS_PER_INCH = 96

ON_WHITE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
"""Background of text that lines may run behind, as matplotlib's ``bbox``."""

# Letters of a figure's title that fit into an inch of its width.
_LETTERS_PER_INCH = 8.5

_FIGURE = jinja2.Template(
    """\
<figure>
{% if narrow -%}
<picture>
<source media="(max-width: 36rem)" srcset="{{ narrow.address }}">
{% endif -%}
<img src="{{ image.address }}" alt="{{ alt }}" width="{{ image.width }}" height="{{ image.height }}">
{%- if narrow %}
</picture>{% endif %}
<figcaption>{{ caption }}</figcaption>
</figure>""",
    autoescape=True,
)

# The box scrolls sideways on a narrow screen; tabindex lets a keyboard reach and scroll it.
_TABLE = jinja2.Template(
    """\
{% if fold %}<details class="fold">
<summary>{{ fold }}</summary>
{% endif %}
<div class="scroll" role="group" aria-label="{{ caption }}" tabindex="0">
<table{% if words %} class="words"{% endif %}>
<caption>{{ caption }}</caption>
<thead>
<tr>
{% for column in columns -%}
<th scope="col"{{ column.css }}>{{ column.name }}</th>
{% endfor -%}
</tr>
</thead>
<tbody>
{% for row in rows -%}
<tr>
{% for cell in row -%}
{% set column = columns[loop.index0] -%}
{% set kind = 'th scope="row"' | safe if loop.first else 'td' -%}
<{{ kind }}{{ column.css }}{{ column.label }}{{ cell.sort }}>{{ cell.text }}</{{ 'th' if loop.first else 'td' }}>
{% endfor -%}
</tr>
{% endfor -%}
</tbody>
</table>
</div>
{%- if fold %}
</details>{% endif %}""",
    autoescape=True,
)


@contextmanager
def style() -> Iterator[None]:
    """Apply the style of the study's figures to everything that is drawn inside.

    Use it as a decorator of a function that draws, ``@display.style()``, or as ``with display.style():``.
    """
    with plt.style.context(_STYLE):
        yield


def figure(fig: Figure, *, caption: str, alt: str = "", raster: bool = False, narrow: Figure | None = None) -> HTML:
    """Return a matplotlib figure as an image for a page, with caption and alternative text; close it.

    The same figure always gives the same bytes.

    Args:
        fig: Figure drawn under `style`. It is shown at its size in inches, but never wider than the page.
        caption: Text under the figure, which says what it is.
        alt: Text for readers who cannot see the figure, which says what it shows. Emphasis marks (``**``) are removed.
            If empty, the figure's title is used.
        raster: Whether to embed WebP at two pixels per CSS pixel instead of SVG. For figures made of images, this takes
            a tenth of the bytes of a PNG.
        narrow: The same figure drawn for a telephone, needed if ``fig`` is wider than `WIDTH`.

    Raises:
        StudyError: ``caption`` is empty, or the figure has neither ``alt`` nor a title.
    """
    alt = alt or title(fig)
    _refuse_empty(caption=caption, alt=alt)
    images = {"image": _embed(fig, raster), "narrow": narrow and _embed(narrow, raster)}
    return HTML(_FIGURE.render(images, alt=alt.replace("**", ""), caption=caption))


def add_title(fig: Figure, text: str) -> None:
    """Add a title that says what a figure shows above all its panels, in as many lines as its width requires."""
    # Matplotlib would cut off a title that is too wide.
    letters = int(fig.get_figwidth() * _LETTERS_PER_INCH)
    fig.suptitle(textwrap.fill(text, letters), x=0.01, ha="left")


def name_rows(ax: Axes, names: Iterable[str]) -> None:
    """Write the name of each row above the row, inside the axes, because there is no room beside them.

    Rows are at 0, 1, ... from the top, with room for the first name above them.
    """
    names = list(names)
    ax.grid(True, axis="x")
    # The labels of ticks would be beside the axes.
    ax.set_yticks([])
    ax.set_ylim(len(names) - 0.5, -0.7)
    across = ax.get_yaxis_transform()
    for place, name in enumerate(names):
        ax.text(0.01, place - 0.24, name, transform=across, ha="left", va="bottom", fontsize=10, bbox=ON_WHITE)


def draw_intervals(ax: Axes, places: ArrayLike, mean: pd.Series, low: pd.Series, high: pd.Series, **look) -> None:
    """Draw means as points at ``places`` on the vertical axis, with whiskers from ``low`` to ``high``."""
    # Matplotlib expects the lengths of the whiskers, not their ends.
    ax.errorbar(mean, places, xerr=[mean - low, high - mean], **{"fmt": "o", "capsize": 3} | look)


def add_legend(fig: Figure, columns: int = 3) -> None:
    """Replace the legends of all panels by one below them, with each label once."""
    entries = {}
    for ax in fig.axes:
        handles, labels = ax.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
        # Seaborn adds one to the axes by default.
        if ax.get_legend():
            ax.get_legend().remove()
    fig.legend(entries.values(), entries.keys(), loc="outside lower left", ncols=columns, fontsize=9)


def title(fig: Figure) -> str:
    """Return the title of a figure, which says what it shows, on one line."""
    return " ".join(fig.get_suptitle().split())


def count(number: int, noun: str) -> str:
    """Return a number of things in words, e.g. "1 epoch" and "2 epochs"."""
    return f"{number} {agree(number, noun, f'{noun}s')}"


def agree(number: int, one: str, many: str) -> str:
    """Return the form of a word that goes with a number of things."""
    return one if number == 1 else many


def save_figure(fig: Figure, file: Path) -> None:
    """Write a figure as SVG, with the same bytes every time; `figure` can still show it afterwards."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(_render(fig, raster=False))


def table(frame: pd.DataFrame, *, caption: str, digits: int | Mapping[str, int] = 4, fold: str = "") -> HTML:
    """Return a data frame as a table that a screen reader can read out, with caption, column headers and row headers.

    Whole numbers get thousands separators; a missing value is shown as a dash, a truth value as "yes" or "no". An
    underscore in a column's name is shown as a space, so that long headers wrap. Numbers keep all their digits in
    ``data-sort``, by which the pages of `busi.report.pages` sort tables. In a table without any number, each cell also
    carries its column's name, which narrow screens show above it.

    Args:
        frame: Data frame with one level of columns. Its index heads the rows if it has a name, otherwise its first
            column does.
        caption: Text above the table, which says what it is.
        digits: Decimals of floating-point numbers, for all columns or by column name (4 for columns not named).
        fold: Line that a reader clicks to unfold the table; empty for a table that is always open.

    Raises:
        StudyError: ``caption`` is empty, ``digits`` names a column that ``frame`` does not have, or the index has no
            name although it holds more than row numbers.
    """
    _refuse_empty(caption=caption)
    if all(name is not None for name in frame.index.names):
        # Named row labels become the first column, which heads the rows.
        frame = frame.reset_index()
    elif not pd.api.types.is_integer_dtype(frame.index.dtype):
        raise StudyError(f"frame: its index {list(frame.index[:3])}... has no name; set frame.index.name")
    decimals = dict.fromkeys(frame.columns, digits) if isinstance(digits, int) else digits
    unknown = [name for name in decimals if name not in frame.columns]
    if unknown:
        raise StudyError(f"digits: unknown column {unknown[0]!r}; the table has {', '.join(map(str, frame.columns))}")

    columns = []
    cells = []
    for name in frame.columns:
        columns.append({"name": str(name).replace("_", " "), "css": _alignment(frame[name])})
        cells.append([_cell(value, decimals.get(name, 4)) for value in frame[name]])
    # A narrow screen shows a table without numbers cell by cell, so each cell needs its heading.
    words = not any(column["css"] for column in columns)
    for column in columns:
        column["label"] = Markup(' data-label="{}"').format(column["name"]) if words else ""
    rows = list(zip(*cells, strict=True))
    return HTML(_TABLE.render(caption=caption, columns=columns, words=words, rows=rows, fold=fold))


def _embed(fig: Figure, raster: bool) -> dict[str, str | int]:
    """Return a figure as the `address` of an image that holds its data, with its `width` and `height` in CSS pixels."""
    # With its size known, the page does not shift when the image appears.
    width, height = (round(inches * _PIXELS_PER_INCH) for inches in fig.get_size_inches())
    kind = "image/webp" if raster else "image/svg+xml"
    data = base64.b64encode(_render(fig, raster)).decode("ascii")
    return {"address": f"data:{kind};base64,{data}", "width": width, "height": height}


def _render(fig: Figure, raster: bool) -> bytes:
    buffer = io.BytesIO()
    # Jupyter sets a "tight" box, which would crop the figure to a size other than the one given to the page.
    # The salt and text drawn as outlines make the bytes of an SVG the same on every machine.
    settings = {name: _STYLE[name] for name in ("svg.fonttype", "svg.hashsalt")} | {"savefig.bbox": "standard"}
    with plt.rc_context(settings):
        if raster:
            fig.savefig(buffer, format="webp", dpi=2 * _PIXELS_PER_INCH, pil_kwargs={"quality": 60})
        else:
            fig.savefig(buffer, format="svg", metadata={"Creator": None, "Date": None})
    # Jupyter would show an open figure a second time, without caption and alternative text.
    plt.close(fig)
    return buffer.getvalue()


def _alignment(column: pd.Series) -> Markup:
    # To pandas, truth values are numbers, too.
    number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return Markup(' class="number"' if number else "")


def _cell(value: object, digits: int) -> dict[str, str | Markup]:
    """Return the text of a cell, and an attribute to sort by if sorting by the text would be wrong."""
    if pd.isna(value):
        return {"text": "–", "sort": Markup(' data-sort=""')}  # an empty value sorts last
    if pd.api.types.is_bool(value):
        return {"text": "yes" if value else "no", "sort": ""}
    if not pd.api.types.is_number(value):
        return {"text": str(value), "sort": ""}
    text = f"{value:,}" if pd.api.types.is_integer(value) else f"{value:,.{digits}f}"
    return {"text": text, "sort": Markup(f' data-sort="{value!s}"')}


def _refuse_empty(**texts: str) -> None:
    for name, text in texts.items():
        if not text.strip():
            raise StudyError(f"{name}: empty; every figure and table needs words that say what it shows")
