"""Figures and tables as a notebook shows them: self-contained HTML with caption and alternative text."""

import base64
import io
from collections.abc import Mapping

import jinja2
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML
from markupsafe import Markup
from matplotlib.figure import Figure

from busi.config import StudyError

STYLE = "busi.report.study"
"""The style of every figure, ``study.mplstyle``: draw inside ``matplotlib.style.context(STYLE)``."""

_PIXELS_PER_INCH = 96  # what an inch is in CSS, so that an SVG and a PNG of one figure stand equally large

_FIGURE = jinja2.Template(
    """\
<figure>
<img src="data:{{ kind }};base64,{{ data }}" alt="{{ alt }}" width="{{ width }}" height="{{ height }}">
<figcaption>{{ caption }}</figcaption>
</figure>""",
    autoescape=True,
)

# The box scrolls sideways on a narrow screen; tabindex lets a keyboard reach and scroll it.
_TABLE = jinja2.Template(
    """\
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
</div>""",
    autoescape=True,
)


def figure(fig: Figure, *, caption: str, alt: str, raster: bool = False) -> HTML:
    """A matplotlib figure inside the page, as an image with alternative text and a caption; closes ``fig``.

    The same figure gives the same bytes every time.

    Args:
        fig: Drawn with `STYLE`. Shown at its size in inches, and never wider than the page.
        caption: Stands under the figure: what it is.
        alt: For who cannot see it: what it shows.
        raster: WebP at two pixels a CSS pixel instead of SVG, for figures made of images: a tenth of a PNG's bytes.

    Raises:
        StudyError: ``caption`` or ``alt`` is empty.
    """
    _refuse_empty(caption=caption, alt=alt)
    width, height = (round(inches * _PIXELS_PER_INCH) for inches in fig.get_size_inches())
    html = _FIGURE.render(
        kind="image/webp" if raster else "image/svg+xml",
        data=base64.b64encode(_image(fig, raster)).decode("ascii"),
        alt=alt,
        caption=caption,
        width=width,
        height=height,
    )
    plt.close(fig)
    return HTML(html)


def table(frame: pd.DataFrame, *, caption: str, digits: int | Mapping[str, int] = 4) -> HTML:
    """A data frame as a table that a screen reader can read out: caption, column headers, row headers.

    Whole numbers get thousands separators, missing values a dash, truth values "yes" or "no"; an underscore in a
    column's name is shown as a space, so that long headers wrap. Numbers carry all their digits in ``data-sort``, by
    which a page of `busi.report.pages` sorts them. A table without a number is one of words: on a narrow screen each
    of its cells stands under its heading.

    Args:
        frame: One level of columns. Its index if that has a name, otherwise its first column, heads the rows.
        caption: Stands over the table: what it is.
        digits: Decimals of floating-point numbers, for all columns or by column name (4 where none is named).

    Raises:
        StudyError: ``caption`` is empty, ``digits`` names a column that ``frame`` has not, or the index holds
            more than row numbers and has no name to stand over it.
    """
    _refuse_empty(caption=caption)
    if all(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    elif not pd.api.types.is_integer_dtype(frame.index.dtype):
        raise StudyError(f"frame: its index {list(frame.index[:3])}... has no name; set frame.index.name")
    by_column = dict.fromkeys(frame.columns, digits) if isinstance(digits, int) else digits
    if unknown := [name for name in by_column if name not in frame.columns]:
        raise StudyError(f"digits: unknown column {unknown[0]!r}; the table has {', '.join(map(str, frame.columns))}")
    columns = [{"name": str(name).replace("_", " "), "css": _alignment(frame[name])} for name in frame.columns]
    cells = [
        [{"text": _text(value, by_column.get(name, 4)), "sort": _sort(value)} for value in frame[name]]
        for name in frame.columns
    ]
    words = not any(column["css"] for column in columns)
    for column in columns:
        column["label"] = Markup(' data-label="{}"').format(column["name"]) if words else ""
    return HTML(_TABLE.render(caption=caption, columns=columns, words=words, rows=list(zip(*cells, strict=True))))


def _image(fig: Figure, raster: bool) -> bytes:
    buffer = io.BytesIO()
    # "tight" would crop by what is drawn, and the size given in the page would be wrong.
    with plt.rc_context({"savefig.bbox": "standard", "svg.fonttype": "path", "svg.hashsalt": "busi"}):
        if raster:
            fig.savefig(buffer, format="webp", dpi=2 * _PIXELS_PER_INCH, pil_kwargs={"quality": 75})
        else:
            fig.savefig(buffer, format="svg", metadata={"Creator": None, "Date": None})
    return buffer.getvalue()


def _alignment(column: pd.Series) -> Markup:
    number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return Markup(' class="number"' if number else "")


def _text(value: object, digits: int) -> str:
    if pd.isna(value):
        return "–"
    if pd.api.types.is_bool(value):
        return "yes" if value else "no"
    if pd.api.types.is_integer(value):
        return f"{value:,}"
    if pd.api.types.is_float(value):
        return f"{value:,.{digits}f}"
    return str(value)


def _sort(value: object) -> Markup:
    """The attribute by which a table is sorted where the text shown will not do; empty sorts last."""
    if pd.isna(value):
        return Markup(' data-sort=""')
    if pd.api.types.is_number(value) and not pd.api.types.is_bool(value):
        return Markup(f' data-sort="{value!s}"')
    return Markup("")


def _refuse_empty(**texts: str) -> None:
    for name, text in texts.items():
        if not text.strip():
            raise StudyError(f"{name}: empty; every figure and table carries its words: say what it shows")
