"""The frame that all pages of a report share: navigation, contents, sortable tables, scripts, and a limit of size."""

import base64
import functools
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import jinja2
import mistune
from bs4 import BeautifulSoup, Tag
from markupsafe import Markup

from busi.config import GALLERY, StudyError
from busi.results import replace_text

LIMIT = 2_000_000
"""Largest size of a page in bytes."""

TEMPLATES = Path(__file__).with_name("template")
"""Folder of the templates, the style and the scripts of every page."""

# Embedded in every page, because a page must work when it is sent on its own.
_SCRIPTS = ("vendored/sortable.min.js", "copy.js")

_TEMPLATE_IDS = ("content", "contents", "show-code")  # in layout.html.j2

_SCROLL_BOX = {"class": "scroll", "role": "group", "aria-label": "Table", "tabindex": "0"}


def render_template(name: str, **content) -> str:
    """Return what a template in `TEMPLATES`, named by its file, makes of ``content``."""
    return _templates().get_template(name).render(**content)


def write_html(out: Path, body: BeautifulSoup, *, profile: str, pages: Sequence[str]) -> None:
    """Write one HTML file that holds ``body`` inside the frame that all pages share.

    Tables get a button to copy them and headings that sort them; headings get ids to link to. The file appears complete
    or not at all.

    Args:
        out: The file, e.g. ``reports/laptop/3_loss.html``; its folder is made if it does not exist.
        body: Content of the page, with one first-level heading. It is changed in place.
        profile: Named in the title of the window; "smoke" puts a warning on the page.
        pages: Stems of the pages in the order of the navigation, e.g. ``["0_dataset", "1_upsampling"]``.

    Raises:
        StudyError: The page would be larger than `LIMIT`. Nothing is written then.
    """
    _add_table_controls(body)
    # Preformatted text scrolls, so the keyboard has to reach it; a notebook's code is wrapped instead.
    for block in body.select("pre:not(.highlight pre)"):
        block["tabindex"] = "0"
    contents = _name_headings(body)
    html = render_template(
        "layout.html.j2",
        title=body.h1.get_text(),
        profile=profile,
        navigation=_list_navigation(out.stem, pages),
        contents=contents,
        has_code=body.select_one(".code") is not None,
        # The index is no notebook, and the gallery cannot be drawn without networks and images.
        notebook=out.stem if out.stem in pages and out.stem != GALLERY else "",
        body=Markup(str(body)),
        scripts=_read_scripts(),
    )
    size = len(html.encode())
    if size > LIMIT:
        raise StudyError(f"{out}: would have {size:,} bytes, the limit is {LIMIT:,}; show fewer or smaller images")
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(out, html)


def plain_text(markdown: str) -> str:
    """Return Markdown as text without markup on one line, for alternative texts.

    >>> plain_text("KLD is **BCE** here.")
    'KLD is BCE here.'
    """
    text = BeautifulSoup(mistune.html(markdown), "html.parser").get_text()
    return " ".join(text.split())


def _add_table_controls(body: BeautifulSoup) -> None:
    """Give every table a button to copy it, headings that sort it, and a box that scrolls on a narrow screen."""
    for table in body.find_all("table"):
        # Tables of busi.display come in a box; tables written in Markdown do not.
        box = table.find_parent(class_="scroll")
        if box is None:
            box = table.wrap(body.new_tag("div", attrs=_SCROLL_BOX))
        frame = box.wrap(body.new_tag("div", attrs={"class": "table"}))
        frame.insert(0, _new_button(body, "copy", "Copy"))
        if table.thead and table.tbody and len(table.tbody.find_all("tr")) > 1:
            _make_sortable(body, table)


def _make_sortable(body: BeautifulSoup, table: Tag) -> None:
    # Classes of sortable.min.js: the first press sorts in ascending order, missing values stay last.
    table["class"] = [*table.get("class", []), "sortable", "asc", "n-last"]
    for heading in table.thead.find_all("th"):
        # The library listens to a press anywhere in the heading; only a button can be reached with the keyboard.
        button = _new_button(body, "sort")
        button.extend(heading.contents)
        heading.append(button)


def _new_button(body: BeautifulSoup, kind: str, text: str = "") -> Tag:
    return body.new_tag("button", attrs={"type": "button", "class": kind}, string=text)


def _name_headings(body: BeautifulSoup) -> list[dict[str, str]]:
    """Give every second- and third-level heading outside cards a unique id; return level, id and text in order."""
    headings = []
    used = set(_TEMPLATE_IDS)
    for heading in body.select(":is(h2, h3):not(.card *)"):
        text = heading.get_text()
        heading["id"] = _choose_id(text, used)
        used.add(heading["id"])
        level = heading.name.removeprefix("h")
        headings.append({"level": level, "id": heading["id"], "text": text})
    return headings


def _choose_id(text: str, used: set[str]) -> str:
    """Return an id made of ``text`` that is not in ``used``: "table-3", then "table-3-2" and so on."""
    slug = re.sub(r"\W+", "-", text.lower()).strip("-") or "section"
    name = slug
    # Notebooks repeat headings: "The table" under each protocol.
    number = 2
    while name in used:
        name = f"{slug}-{number}"
        number += 1
    return name


def _list_navigation(current: str, pages: Sequence[str]) -> list[dict]:
    """Return address, label ("3 Loss") and "is the current page" of the index and of each page."""
    labels = {"index": "Overview"}
    for stem in pages:
        labels[stem] = stem.replace("_", " ").title()
    return [{"href": f"{stem}.html", "label": text, "current": stem == current} for stem, text in labels.items()]


@functools.cache
def _templates() -> jinja2.Environment:
    # A mistyped name in a template must raise an error instead of leaving a gap in the page. Text is escaped, since
    # titles and captions may contain "<" or "&"; HTML is passed as Markup.
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@functools.cache
def _read_scripts() -> list[dict[str, str]]:
    """Return each script with the digest by which a page's content policy allows it to run."""
    scripts = []
    for name in _SCRIPTS:
        text = (TEMPLATES / name).read_text(encoding="utf-8")
        # The browser computes the same digest from the text between the script tags.
        digest = hashlib.sha256(text.encode()).digest()
        encoded = base64.b64encode(digest).decode("ascii")
        scripts.append({"text": Markup(text), "digest": f"sha256-{encoded}"})
    return scripts
