"""The findings in README.md, copied from what a report's notebooks have recorded and never typed in."""

from pathlib import Path

from busi import results
from busi.config import Parameters, StudyError
from busi.report import claims, index, layout
from busi.results import replace_text

START = "<!-- findings -->"
END = "<!-- /findings -->"


def update_readme(parameters: Parameters, readme: Path) -> Path:
    """Replace what is between the markers of ``readme`` with the findings of a report.

    Args:
        parameters: Parameters of the study, which name the report.
        readme: Markdown file in the study's folder that holds `START` and then `END`, once each.

    Raises:
        StudyError: The markers are missing or repeated. Nothing is written then.
        NotMeasured: The report has no findings. Nothing is written then.
    """
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, ended, after = rest.partition(END)
    starts = text.count(START)
    ends = text.count(END)
    # With markers in any other order or number, text of the README would be lost.
    if not ended or starts != 1 or ends != 1:
        raise StudyError(
            f"{readme}: expected one line {START} and below it one line {END}, found {starts} and {ends}; "
            "put them where the findings belong"
        )
    block = compose_findings(parameters)
    replace_text(readme, f"{before}{START}\n{block}\n{END}{after}")
    return readme


def compose_findings(parameters: Parameters) -> str:
    """Return the findings as Markdown: the summary's sentences, the claims, a line on the runs, then the main figure.

    Raises:
        NotMeasured: The report has no findings or tables.
    """
    summary = index.read_summary(parameters)
    # A relative address, which works in a checkout and on a hosting site alike.
    figure = f"reports/{parameters.report_path.name}/figures/{index.HEADLINE_FIGURE}"
    # A screen reader would read marks of emphasis aloud.
    alt = layout.plain_text(summary["rows"])
    lines = [*summary["answer"], *summary["details"], f"Profile `{parameters.profile}`: {summary['progress']}"]
    listed = "\n".join(f"- {line}" for line in lines)
    verdicts = claims.list_verdicts(index.read_verdict_table(parameters))
    progress = results.read_table(parameters, "progress").to_markdown(index=False)
    return (
        f"{listed}\n\nThe claims, one by one:\n\n{verdicts}\n\n"
        f"![{alt}]({figure})\n\nRuns that have been trained, of those planned:\n\n{progress}"
    )
