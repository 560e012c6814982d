"""Executed notebooks as HTML pages: one file each, which loads nothing else."""

import functools
import re
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from nbformat.reader import NotJSONError

from busi import config, results
from busi.config import Parameters, StudyError
from busi.report import layout

# nbconvert replaces a missing text with this sentence, which is of no use to readers who cannot see the image.
_MISSING_ALT = ("", "No description has been provided for this image")


def write_page(notebook: Path, out: Path, *, parameters: Parameters) -> Path:
    """Write an executed notebook as one HTML page, and record its title in ``findings.json`` for the index.

    The title comes first, whatever cells are above it in the notebook. Progress bars, output to standard error and
    empty outputs are left out, and code is folded away. Folders of this machine are not shown: the home folder becomes
    "~", the study's folder ".", and an absolute path among the parameters is cut to its last part.

    Args:
        notebook: Notebook as papermill has executed it. Its first heading is the title of the page.
        out: The page, e.g. ``reports/laptop/3_loss.html``.
        parameters: Parameters of the study: profile, report and pages.

    Raises:
        StudyError: A cell failed or was not run, no text cell has a first-level heading, an image has no alternative
            text or is not embedded, or the page would be larger than `busi.report.layout.LIMIT`. Nothing is written
            then.
    """
    body = convert_notebook(notebook, parameters)
    save_page(body, out, parameters)
    return out


def convert_notebook(notebook: Path, parameters: Parameters) -> BeautifulSoup:
    """Return the content of a page, made of an executed notebook; arguments and errors as in `write_page`."""
    nb = _read_executed(notebook)
    _hide_machine(nb, parameters)
    nb.cells = [cell for cell in nb.cells if cell.source.strip()]
    html, _ = _exporter().from_notebook_node(nb)
    body = BeautifulSoup(html, "html.parser")
    # The template draws neither progress bars nor standard error: a box with nothing else is empty.
    for box in body.select(".output"):
        if not box.get_text(strip=True) and box.img is None:
            box.decompose()
    _check_images(body, notebook)
    _move_title_first(body, notebook)
    return body


def save_page(body: BeautifulSoup, out: Path, parameters: Parameters) -> None:
    """Write the content of a page inside the frame of the report, and record its title for the index."""
    title = body.h1.get_text()
    layout.write_html(out, body, profile=parameters.profile, pages=parameters.pages)
    # Recorded last: the index must not list a page that was refused. A gallery drawn for oneself, or a page written
    # somewhere else, is not part of the report.
    if out.stem in parameters.pages and out.parent.resolve() == parameters.report_path.resolve():
        results.record_finding(parameters, "pages", **{out.stem: title})


def _read_executed(notebook: Path) -> NotebookNode:
    """Read a notebook, and check that every code cell has run without an error."""
    if not notebook.is_file():
        raise StudyError(f"{notebook}: no such notebook; execute it with papermill first")
    try:
        nb = nbformat.read(notebook, as_version=4)
    except NotJSONError as error:
        raise StudyError(f"{notebook}: not a notebook; expected one that papermill has executed") from error
    for number, cell in enumerate(nb.cells, start=1):
        source = cell.source.strip()
        if cell.cell_type == "code" and source:
            first_line = source.splitlines()[0]
            _check_executed(cell, f"{notebook}: cell {number} ({first_line!r})")
    return nb


def _check_executed(cell: NotebookNode, where: str) -> None:
    for output in cell.outputs:
        if output.output_type == "error":
            raise StudyError(f"{where} failed with {output.ename}: {output.evalue}; fix it and run the notebook again")
    # A kernel that dies leaves no error in the notebook, only cells that never ran.
    if cell.execution_count is None:
        raise StudyError(f"{where} was not run; execute the whole notebook with papermill")


def _hide_machine(nb: NotebookNode, parameters: Parameters) -> None:
    """Replace this machine's folders in code and in outputs."""
    replacements = _list_replacements(nb, parameters)
    longest_first = sorted(replacements, key=len, reverse=True)
    folders = "|".join(re.escape(folder) for folder in longest_first)
    # A folder may not follow a character of base64, so that the data of embedded images are never changed.
    pattern = re.compile(rf"(?<![\w+/=])({folders})(?!\w)")

    def clean(text: str) -> str:
        return pattern.sub(lambda match: replacements[match[1]], text)

    for cell in nb.cells:
        cell.source = clean(cell.source)
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = clean(output.text)
                continue
            for kind, content in output.data.items():
                if kind.startswith("text/"):
                    output.data[kind] = clean(content)


def _list_replacements(nb: NotebookNode, parameters: Parameters) -> dict[str, str]:
    """Return folder of this machine -> text to show in its place."""
    papermill = nb.metadata.get("papermill", {})
    given = papermill.get("parameters", {}).values()
    replacements = {str(Path.home()): "~", str(config.find_study_folder()): "."}
    # A profile may name folders too, which are not among papermill's parameters.
    for value in (*given, parameters.data_dir, parameters.external_dir, parameters.runs_dir):
        if isinstance(value, str) and Path(value).is_absolute():
            path = Path(value)
            replacements[str(path)] = f"…/{path.name}"
    return replacements


def _check_images(body: BeautifulSoup, notebook: Path) -> None:
    for image in body.find_all("img"):
        if image["alt"].strip() in _MISSING_ALT:
            raise StudyError(f"{notebook}: an image has no alternative text; show it with busi.display.figure")
        if not image["src"].startswith("data:"):
            raise StudyError(f"{notebook}: image {image['src']} is not embedded in the page; embed it")


def _move_title_first(body: BeautifulSoup, notebook: Path) -> None:
    title = body.select_one(".text:has(h1)")
    if title is None:
        raise StudyError(f"{notebook}: has no title; begin its first text with '# Title'")
    body.insert(0, title.extract())


@functools.cache
def _exporter() -> HTMLExporter:
    """Return the converter of a notebook's cells to HTML; the frame around them is `busi.report.layout`'s."""
    # Empty addresses: no page may load MathJax or require.js from a server.
    return HTMLExporter(
        template_name=layout.TEMPLATES.name,
        extra_template_basedirs=[str(layout.TEMPLATES.parent)],
        template_file="cells.html.j2",
        exclude_anchor_links=True,
        mathjax_url="",
        require_js_url="",
    )
