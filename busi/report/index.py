"""The index of a report: what the study asks, what it found, how big it was and how to make it again.

The index computes nothing. The notebooks have written ``findings.json``, ``tables/*.csv`` and ``figures/*.svg``; it
arranges them.
"""

import base64
from pathlib import Path

import mistune
from bs4 import BeautifulSoup
from markupsafe import Markup

from busi import config, display, results
from busi.config import Parameters, StudyError
from busi.report import layout
from busi.results import NotMeasured

SUMMARY = "notebooks/6_summary.ipynb"
"""Notebook that writes down what the index and the README tell."""

HEADLINE_FIGURE = "rows-against-blind.svg"
"""Figure of the published rows and ours against blind predictors, in the report's folder ``figures``."""

LADDER_FIGURE = "ladder.svg"

# The texts below are the same in every report; everything that depends on numbers comes from the findings.
_TITLE = "Breast ultrasound segmentation: a published study examined"

_QUESTION = (
    "A student paper trained a U-Net on BUSI, breast ultrasound images with lesion masks, and compared upsampling "
    "layers, optimizers, losses and preprocessing in four small tables (Duffy, Hassan, Kim: *Breast Ultrasound Image "
    "Segmentation Analysis*, 2024). This report trains those rows again under the published protocol, faults "
    "included, and compares each with predictors that never look at the image. Then it asks the same questions on "
    "images held out from training."
)

_CLAIMS = ["claim", "published", "ours", "verdict", "evidence"]

_CLAIMS_CAPTION = "Each claim, what was published, our held-out answer and verdict."

_HEADLINE_CAPTION = (
    "The nine distinct published rows and ours, in AUC and loss on the training images, against what predictors reach "
    "that never look at an image."
)

_LADDER_CAPTION = (
    "From the published number (star) to the held-out one in single steps, each with the 95 % interval of its change; "
    "dashed: background everywhere on the same images."
)


def write_index(parameters: Parameters) -> Path:
    """Write ``reports/<report>/index.html``, which leads to the report's pages and tables.

    Each page is listed with its title, its question and its finding. A page that has not been drawn is named as
    missing.

    Returns:
        The index.

    Raises:
        NotMeasured: The summary notebook has not been run for this report. Nothing is written then.
        StudyError: A figure of that notebook is missing, or the index would be larger than
            `busi.report.layout.LIMIT`. Nothing is written then.
    """
    summary = read_summary(parameters)
    claims = results.read_table(parameters, "claims")
    listed = _list_pages(parameters)
    # Verdicts and the number of runs behind them belong in one paragraph.
    answer = "\n\n".join([summary["rows"], f"{summary['claims']} {summary['heldout']}"])
    html = layout.render_template(
        "index.html.j2",
        title=_TITLE,
        question=_to_html(_QUESTION),
        answer=_to_html(answer),
        figures=_embed_figures(parameters, summary),
        claims=Markup(display.table(claims[_CLAIMS], caption=_CLAIMS_CAPTION).data),
        pages=listed,
        absent=_explain_absent_pages(parameters, listed),
        tables=_list_tables(parameters),
        size=summary["size"],
        made=summary["made"],
        commands=_list_commands(parameters),
    )
    # Missing pages are left out of the navigation, so that every link leads somewhere.
    out = parameters.report_path / "index.html"
    body = BeautifulSoup(html, "html.parser")
    layout.write_html(out, body, profile=parameters.profile, pages=list(listed))
    return out


def read_summary(parameters: Parameters) -> dict:
    """Read what the summary notebook has recorded in the report's ``findings.json``.

    Returns:
        Sentences as Markdown: `rows` (which are reproduced, and which ones a blind predictor reaches), `floors`,
        `claims`, `heldout` (progress of the held-out runs, what they show, and each verdict), `progress` (of the
        published ones) and, where the ladder has been measured, `ladder`. Facts by name: `size` (data and size of the
        study) and `made` (when, on what and with what the runs were trained).

    Raises:
        NotMeasured: The notebook has not been run for this report.
    """
    findings = results.read_findings(parameters)
    if "summary" not in findings:
        file = parameters.report_path / "findings.json"
        raise NotMeasured(
            f"{file}: no summary yet; {SUMMARY} writes it: execute it, or draw the whole report with "
            f"busi render {parameters.report_path}"
        )
    return findings["summary"]


def _list_pages(parameters: Parameters) -> dict[str, dict[str, str]]:
    """Return title, question and finding of each page that has been drawn, by its stem."""
    recorded = results.read_findings(parameters).get("pages", {})
    listed = {}
    for stem in parameters.pages:
        # A page that someone has deleted is still recorded.
        if stem in recorded and (parameters.report_path / f"{stem}.html").is_file():
            listed[stem] = recorded[stem]
    return listed


def _explain_absent_pages(parameters: Parameters, listed: dict) -> dict[str, str]:
    """Return the reason why each page that a reader may look for is not in this report."""
    absent = {}
    for stem in parameters.pages:
        if stem not in listed:
            absent[layout.page_label(stem)] = "it has not been drawn."
    if not parameters.show_pixels:
        absent[layout.page_label(config.GALLERY)] = (
            "it shows images of the data set, which we may not publish. The last section says how to draw it where the "
            "data and the trained networks are."
        )
    return absent


def _list_tables(parameters: Parameters) -> list[str]:
    folder = parameters.report_path
    # An address has forward slashes on every system.
    return sorted(file.relative_to(folder).as_posix() for file in folder.glob("tables/*.csv"))


def _list_commands(parameters: Parameters) -> dict[str, str]:
    """Return the commands that make the report again, by what each of them does."""
    arguments = f"PROFILE={parameters.profile}"
    # A study on phantoms draws its data itself.
    if parameters.data_dir != "phantom":
        arguments += " DATA=/path/to/Dataset_BUSI_with_GT"
    return {
        "Draw these pages again from the committed results, without data or training": (
            f"busi render reports/{parameters.report_path.name}"
        ),
        "Train what is missing, then draw the pages": f"make study {arguments}",
        "Draw the gallery: each variant's best, median and worst cases, for yourself": f"make gallery {arguments}",
    }


def _embed_figures(parameters: Parameters, summary: dict) -> list[dict[str, str]]:
    """Return the headline figure and, where it has been measured, the ladder."""
    figures = [_embed_figure(parameters, HEADLINE_FIGURE, _HEADLINE_CAPTION, summary["rows"])]
    # The ladder needs runs that the study may not have trained yet.
    if "ladder" in summary:
        figures.append(_embed_figure(parameters, LADDER_FIGURE, _LADDER_CAPTION, summary["ladder"]))
    return figures


def _embed_figure(parameters: Parameters, name: str, caption: str, finding: str) -> dict[str, str]:
    """Return address, alternative text and caption of a figure of the report, with its data in the address."""
    file = parameters.report_path / "figures" / name
    if not file.is_file():
        raise StudyError(f"{file}: no such figure; {SUMMARY} draws it: run it again")
    # The index must be complete when someone sends it without its folder.
    data = base64.b64encode(file.read_bytes()).decode("ascii")
    address = f"data:image/svg+xml;base64,{data}"
    return {"address": address, "alt": layout.plain_text(finding), "caption": caption}


def _to_html(markdown: str) -> Markup:
    return Markup(mistune.html(markdown))
