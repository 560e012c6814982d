"""The index of a report: what the study asks, what it found, how big it was and how to make it again.

The index computes nothing: it arranges ``findings.json``, ``tables/*.csv`` and ``figures/*.svg``, which the notebooks
have written.
"""

import base64
from pathlib import Path

import mistune
import pandas as pd
from bs4 import BeautifulSoup
from markupsafe import Markup

from busi import display, results
from busi.config import Parameters, StudyError
from busi.report import layout
from busi.results import NotMeasured

SUMMARY = "notebooks/6_summary.ipynb"
"""Notebook that records what the index and the README say."""

HEADLINE_FIGURE = "rows-against-blind.svg"
"""Figure of the published rows and ours against blind predictors, in the report's folder ``figures``."""

NARROW_FIGURE = "rows-against-blind-narrow.svg"
"""The same figure for a telephone."""

LADDER_FIGURE = "ladder.svg"

CLAIM_FIGURE = "claim-{}.svg"
"""Figure of the differences that a claim is judged by, with a place for the claim's number."""

_COUNTS_CAPTION = (
    "Rows of the paper's tables and what became of them here. AUC not above blind: a predictor that never looks at the "
    "image has an AUC as high. Nor loss below: its loss is not lower than that of every such predictor, either. A row "
    "can be reproduced all the same."
)


def write_index(parameters: Parameters) -> Path:
    """Write ``reports/<report>/index.html``, which leads to the report's pages and tables.

    A page that has not been drawn is not listed.

    Raises:
        NotMeasured: The summary notebook has not been run for this report. Nothing is written then.
        StudyError: A figure of the notebooks is missing, or the index would be larger than
            `busi.report.layout.LIMIT`. Nothing is written then.
    """
    summary = read_summary(parameters)
    listed = _list_pages(parameters)
    ladder = None
    # The ladder needs runs that the study may not have trained yet.
    if "ladder" in summary:
        ladder = _embed_figure(parameters, LADDER_FIGURE, summary["ladder"])
    counts = results.read_table(parameters, "counts")
    html = layout.render_template(
        "index.html.j2",
        answer=[_to_html(sentence) for sentence in summary["answer"]],
        details=[_to_html(sentence) for sentence in summary["details"]],
        headline=_embed_figure(parameters, HEADLINE_FIGURE, summary["rows"]),
        narrow=_embed_figure(parameters, NARROW_FIGURE, summary["rows"])["address"],
        cards=_list_cards(parameters),
        ladder=ladder,
        counts=Markup(display.table(counts, caption=_COUNTS_CAPTION).data),
        pages=listed,
        tables=sorted(f"tables/{file.name}" for file in parameters.tables_path.glob("*.csv")),
        size=summary["size"],
        made=summary["made"],
        commands=_list_commands(parameters),
    )
    out = parameters.report_path / "index.html"
    body = BeautifulSoup(html, "html.parser")
    # Missing pages are left out of the navigation, so that every link leads somewhere.
    layout.write_html(out, body, profile=parameters.profile, pages=list(listed))
    return out


def read_summary(parameters: Parameters) -> dict:
    """Read what the summary notebook has recorded in the report's ``findings.json``.

    Returns:
        `answer` and `details` (short paragraphs of Markdown; the answer comes first), `rows` (what the headline figure
        shows), `progress` of the published runs and, if the ladder has been measured, its conclusion `ladder`. Facts by
        name: `size` (data and size of the study) and `made` (when, on what and with which software the runs were
        trained).

    Raises:
        NotMeasured: The notebook has not been run for this report.
    """
    findings = results.read_findings(parameters)
    if "summary" not in findings:
        file = parameters.report_path / "findings.json"
        raise NotMeasured(
            f"{file}: no summary yet; {SUMMARY} writes it: execute it, or draw the whole report with "
            f"{_render_command(parameters)}"
        )
    return findings["summary"]


def read_verdict_table(parameters: Parameters) -> pd.DataFrame:
    """Read ``claims.csv``, the table of `busi.report.claims.read_verdicts`; without a second size, its cells are ""."""
    return results.read_table(parameters, "claims").astype(object).fillna("")


def _list_cards(parameters: Parameters) -> list[dict]:
    """Return each claim with its verdict and evidence in words, and its figure if it has one."""
    cards = []
    for number, claim in enumerate(read_verdict_table(parameters).to_dict("records"), start=1):
        name = CLAIM_FIGURE.format(number)
        claim["figure"] = None
        # A claim without any run has no figure, which would only be empty axes.
        if (parameters.report_path / "figures" / name).is_file():
            shown = f"{claim['title']}. At {claim['size']}: {claim['reason']}."
            if claim["second_verdict"]:
                shown += f" At {claim['second_size']}: {claim['second_reason']}."
            claim["figure"] = _embed_figure(parameters, name, shown)
        cards.append(claim)
    return cards


def _list_pages(parameters: Parameters) -> dict[str, str]:
    """Return the title of each page that has been drawn, by its stem."""
    recorded = results.read_findings(parameters).get("pages", {})
    listed = {}
    for stem in parameters.pages:
        # A page that someone has deleted is still recorded.
        if stem in recorded and (parameters.report_path / f"{stem}.html").is_file():
            listed[stem] = recorded[stem]
    return listed


def _list_commands(parameters: Parameters) -> dict[str, str]:
    """Return the commands that make the report again: what a command does -> the command."""
    arguments = f"PROFILE={parameters.profile}"
    # A study on phantoms draws its data itself.
    if parameters.data_dir != "phantom":
        arguments += " DATA=/path/to/Dataset_BUSI_with_GT"
    report = f" REPORT={parameters.report}" if parameters.report else ""
    return {
        "Draw these pages again from the committed results, without data or training": (
            f"make report PROFILE={parameters.profile}{report}"
        ),
        "Train what is missing, then draw the pages": f"make study {arguments}",
        "Draw the gallery: each variant's best, median and worst cases, for yourself": f"make gallery {arguments}",
    }


def _render_command(parameters: Parameters) -> str:
    # The name of such a report does not tell its profile.
    profile = f" --profile {parameters.profile}" if parameters.report else ""
    return f"busi render reports/{parameters.report_path.name}{profile}"


def _embed_figure(parameters: Parameters, name: str, finding: str) -> dict[str, str]:
    """Return address and alternative text of a figure of the report, with its data in the address."""
    file = parameters.report_path / "figures" / name
    if not file.is_file():
        raise StudyError(f"{file}: no such figure; draw the report again: {_render_command(parameters)}")
    # The index must be complete when someone sends it without its folder.
    data = base64.b64encode(file.read_bytes()).decode("ascii")
    address = f"data:image/svg+xml;base64,{data}"
    return {"address": address, "alt": layout.plain_text(finding)}


def _to_html(markdown: str) -> Markup:
    return Markup(mistune.html(markdown))
