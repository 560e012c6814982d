"""Executed notebooks as HTML pages, and an index that leads to them: files that load nothing else."""

import base64
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import jinja2
import mistune
import nbformat
from bs4 import BeautifulSoup, Tag
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from busi.config import ROOT, StudyError

LIMIT = 2_000_000
"""No page is larger, in bytes."""

_TEMPLATE = Path(__file__).with_name("template")
_SCRIPTS = ("vendored/sortable.min.js", "copy.js")
_WIDGET = "application/vnd.jupyter.widget-view+json"
_MEDIA_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
_SCROLL = {"class": "scroll", "role": "group", "aria-label": "Table", "tabindex": "0"}
# nbconvert fills a missing text with this sentence, which says nothing to who cannot see the image.
_NO_TEXT = ("", "No description has been provided for this image")


@dataclass(frozen=True)
class Picture:
    """An image file (SVG or PNG) for the index, with the text for who cannot see it and a caption."""

    file: Path
    alt: str
    caption: str


def page(notebook: Path, out: Path, *, profile: str, pages: Sequence[str]) -> Path:
    """Write an executed notebook as one HTML page.

    The title comes first, whatever cells stand above it in the notebook. Progress bars, what went to standard error and
    empty outputs are left out; code is folded away. Folders of this machine are not shown: absolute paths among the
    notebook's parameters are cut to their last part.

    Args:
        notebook: As papermill left it. Its first heading is the page's title.
        out: The page, e.g. ``reports/laptop/3_loss.html``.
        profile: Named in the title; "smoke" puts a warning on the page.
        pages: Stems of the report's pages, in the order of the navigation: ``["0_dataset", ...]``.

    Returns:
        ``out``.

    Raises:
        StudyError: A cell failed or was not run, no text cell has a first-level heading, an image has no alternative
            text or lies outside the notebook, or the page would be larger than `LIMIT`. Nothing is written then.
    """
    nb = _without_noise(_without_machine(_finished(notebook)))
    cells, _ = _exporter().from_notebook_node(nb)
    body = BeautifulSoup(cells, "html.parser")
    _check_images(body, notebook)
    title = body.select_one(".text:has(h1)")
    if title is None:
        raise StudyError(f"{notebook}: has no title; begin its first text with '# Title'")
    body.insert(0, title.extract())
    return _write(out, body, profile=profile, pages=pages)


def index(
    folder: Path,
    *,
    profile: str,
    pages: Sequence[str],
    title: str,
    question: str,
    answer: str,
    size: Mapping[str, str],
    made: Mapping[str, str],
    commands: Mapping[str, str],
    pictures: Sequence[Picture] = (),
    claims: str = "",
    absent: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write ``folder/index.html``, which leads to the report's pages and tables.

    Each page is named by its title, followed by its question, the paragraph after the title, and its finding: the
    first paragraph of what the cell tagged ``finding`` shows. Where there is none, none is shown.

    Args:
        folder: ``reports/<profile>``, with the pages and ``tables/*.csv`` in it.
        profile: As for `page`.
        pages: As for `page`; all must be there.
        title: The study's.
        question: Markdown: what the study is and what it asks.
        answer: Markdown: what it found.
        size: What data and what size of study, name by name: ``{"Images": "647 with lesions", ...}``.
        made: When and on what the results were made, name by name.
        commands: What to type to make the report again, by what each command does.
        pictures: Headline figures.
        claims: HTML, e.g. of `busi.report.display.table`: what the paper claims and what became of it.
        absent: Pages that a reader may look for in vain -> why they are not in this report, a sentence.

    Returns:
        The index.

    Raises:
        StudyError: A page or a picture is missing, a picture is neither SVG nor PNG or has no text, or the index
            would be larger than `LIMIT`. Nothing is written then.
    """
    html = (
        _templates()
        .get_template("index.html.j2")
        .render(
            title=title,
            question=Markup(mistune.html(question)),
            answer=Markup(mistune.html(answer)),
            pictures=[_embedded(picture) for picture in pictures],
            claims=Markup(claims),
            summaries=[_summary(folder / f"{stem}.html") for stem in pages],
            absent=absent,
            tables=sorted(file.relative_to(folder).as_posix() for file in folder.glob("tables/*.csv")),
            size=size,
            made=made,
            commands=commands,
        )
    )
    return _write(folder / "index.html", BeautifulSoup(html, "html.parser"), profile=profile, pages=pages)


def label(stem: str) -> str:
    """What a page is called in the navigation: "3_loss" is "3 Loss"."""
    return stem.replace("_", " ").title()


def _finished(notebook: Path) -> NotebookNode:
    """The notebook, every code cell of it run without an error."""
    if not notebook.is_file():
        raise StudyError(f"{notebook}: no such notebook; execute it with papermill first")
    nb = nbformat.read(notebook, as_version=4)
    for number, cell in enumerate(nb.cells, start=1):
        if cell.cell_type == "code" and cell.source.strip():
            _check_finished(cell, f"{notebook}: cell {number} ({cell.source.strip().splitlines()[0]!r})")
    return nb


def _check_finished(cell: NotebookNode, where: str) -> None:
    for output in cell.outputs:
        if output.output_type == "error":
            raise StudyError(f"{where} failed with {output.ename}: {output.evalue}; mend and run it again")
    # A kernel that dies leaves a notebook without an error in it, and cells that never ran.
    if cell.execution_count is None:
        raise StudyError(f"{where} was not run; execute the whole notebook with papermill")


def _without_machine(nb: NotebookNode) -> NotebookNode:
    """The notebook without this machine's folders, in code and outputs alike."""
    parameters = nb.metadata.get("papermill", {}).get("parameters", {}).values()
    folders = [Path(value) for value in parameters if isinstance(value, str) and Path(value).is_absolute()]
    shown = {str(Path.home()): "~", str(ROOT): "."} | {str(path): f"…/{path.name}" for path in folders}
    longest_first = sorted(shown, key=len, reverse=True)
    # What precedes a path is never a character of base64, so embedded images cannot be hit.
    paths = re.compile(rf"(?<![\w+/=])({'|'.join(map(re.escape, longest_first))})(?!\w)")

    def clean(text: str) -> str:
        return paths.sub(lambda match: shown[match[1]], text)

    for cell in nb.cells:
        cell.source = clean(cell.source)
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = clean(output.text)
            else:
                for kind in [kind for kind in output.data if kind.startswith("text/")]:
                    output.data[kind] = clean(output.data[kind])
    return nb


def _without_noise(nb: NotebookNode) -> NotebookNode:
    """The notebook without empty code cells and without outputs that no reader wants to see."""
    nb.cells = [cell for cell in nb.cells if cell.source.strip()]
    for cell in nb.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if not _is_noise(output)]
    return nb


def _is_noise(output: NotebookNode) -> bool:
    if output.output_type == "stream":
        return output.name == "stderr" or not output.text.strip()
    return _WIDGET in output.data or not any(map(str.strip, map(str, output.data.values())))


def _check_images(body: BeautifulSoup, notebook: Path) -> None:
    for image in body.find_all("img"):
        if image["alt"].strip() in _NO_TEXT:
            raise StudyError(f"{notebook}: an image has no alternative text; use busi.report.display.figure")
        if not image["src"].startswith("data:"):
            raise StudyError(f"{notebook}: image {image['src']} lies outside the page; embed it")


def _reachable_code(body: BeautifulSoup) -> None:
    """Let a keyboard reach, and so scroll, preformatted text; notebooks' code is wrapped and needs no scrolling."""
    for block in body.select("pre:not(.highlight pre)"):
        block["tabindex"] = "0"


def _handy_tables(body: BeautifulSoup) -> None:
    """Give every table a button to copy it, headings that sort it and a box that scrolls on a narrow screen."""
    for table in body.find_all("table"):
        box = table.find_parent(class_="scroll") or table.wrap(body.new_tag("div", attrs=_SCROLL))
        box.wrap(body.new_tag("div", attrs={"class": "table"})).insert(0, _button(body, "Copy", "copy"))
        if table.thead and table.tbody and len(table.tbody.find_all("tr")) > 1:
            # Of the vendored sortable.min.js: ascending first, missing values last.
            table["class"] = [*table.get("class", []), "sortable", "asc", "n-last"]
            for heading in table.thead.find_all("th"):
                # A button, so that a keyboard reaches what the library listens to: a press anywhere in the heading.
                button = _button(body, "", "sort")
                button.extend(heading.contents)
                heading.append(button)


def _button(body: BeautifulSoup, text: str, kind: str) -> Tag:
    return body.new_tag("button", attrs={"type": "button", "class": kind}, string=text)


def _named_headings(body: BeautifulSoup) -> list[dict[str, str]]:
    """Name every second- and third-level heading uniquely; their levels, names and texts in order."""
    headings, used = [], {"content", "contents", "show-code"}  # the ids of the templates
    for heading in body.find_all(["h2", "h3"]):
        text = heading.get_text()
        slug = name = re.sub(r"\W+", "-", text.lower()).strip("-") or "section"
        number = 2
        while name in used:
            name, number = f"{slug}-{number}", number + 1
        used.add(name)
        heading["id"] = name
        headings.append({"level": heading.name[1], "id": name, "text": text})
    return headings


def _embedded(picture: Picture) -> dict[str, str]:
    if not picture.file.is_file():
        raise StudyError(f"{picture.file}: no such picture")
    if picture.file.suffix not in _MEDIA_TYPES:
        raise StudyError(f"{picture.file}: got {picture.file.suffix!r}; expected .svg or .png")
    if not picture.alt.strip():
        raise StudyError(f"{picture.file}: has no alternative text; say what it shows")
    data = base64.b64encode(picture.file.read_bytes()).decode("ascii")
    src = f"data:{_MEDIA_TYPES[picture.file.suffix]};base64,{data}"
    return {"src": src, "alt": picture.alt, "caption": picture.caption}


def _summary(file: Path) -> dict[str, str]:
    """Address, title, question and finding of a page that is written."""
    if not file.is_file():
        raise StudyError(f"{file}: no such page; write it with busi.report.pages.page before the index")
    written = BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")
    paragraph = written.select_one(".finding p")
    finding = " ".join(paragraph.get_text().split()) if paragraph else ""
    question = written.select_one("h1 + p")
    return {
        "href": file.name,
        "title": written.h1.get_text(),
        "question": " ".join(question.get_text().split()) if question else "",
        "finding": finding,
    }


def _navigation(current: str, pages: Sequence[str]) -> list[dict]:
    """Where each page is, what it is called, and which one this is."""
    labels = {"index": "Overview"} | {stem: label(stem) for stem in pages}
    return [{"href": f"{stem}.html", "label": text, "current": stem == current} for stem, text in labels.items()]


@functools.cache
def _exporter() -> HTMLExporter:
    """Turns the cells of a notebook into HTML; what stands around them is not nbconvert's."""
    return HTMLExporter(
        template_name=_TEMPLATE.name,
        extra_template_basedirs=[str(_TEMPLATE.parent)],
        template_file="cells.html.j2",
        exclude_anchor_links=True,
        mathjax_url="",
        require_js_url="",
    )


@functools.cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(_TEMPLATE)
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


@functools.cache
def _scripts() -> list[dict[str, str]]:
    """What runs in a page, each with the digest by which the page's content policy lets it run."""
    texts = [(_TEMPLATE / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") for text in texts]
    return [{"text": Markup(text), "digest": f"sha256-{digest}"} for text, digest in zip(texts, digests, strict=True)]


def _write(out: Path, body: BeautifulSoup, *, profile: str, pages: Sequence[str]) -> Path:
    """Put what every page has around ``body``, and the page in place whole, or not at all."""
    _handy_tables(body)
    _reachable_code(body)
    contents = _named_headings(body)
    html = (
        _templates()
        .get_template("layout.html.j2")
        .render(
            title=body.h1.get_text(),
            profile=profile,
            navigation=_navigation(out.stem, pages),
            contents=contents,
            has_code=body.select_one(".code") is not None,
            body=Markup(str(body)),
            scripts=_scripts(),
        )
    )
    if (size := len(html.encode())) > LIMIT:
        raise StudyError(f"{out}: would have {size:,} bytes, the limit is {LIMIT:,}; show fewer or smaller images")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.part")
    partial.write_text(html, encoding="utf-8", newline="\n")
    return partial.replace(out)
