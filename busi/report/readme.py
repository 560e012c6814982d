"""The findings in README.md: filled from what a report has gathered, never typed in."""

from pathlib import Path

from busi.config import ROOT, Study, StudyError
from busi.evaluation import floors
from busi.report import claims, findings, heldout, overview, tables
from busi.study import every_family

START, END = "<!-- findings -->", "<!-- /findings -->"


def update(study: Study, readme: Path = ROOT / "README.md") -> Path:
    """Replace what stands between the markers of ``readme`` with the findings of ``study``'s report.

    Args:
        study: Its profile names the report; nothing is trained and no data are read.
        readme: Markdown at the root of the repository, with `START` and then `END` once each.

    Returns:
        ``readme``.

    Raises:
        StudyError: The markers are not there, or the report has no floors. Nothing is written then.
    """
    text = readme.read_text(encoding="utf-8")
    before, started, rest = text.partition(START)
    _, ended, after = rest.partition(END)
    if not (started and ended) or text.count(START) + text.count(END) != 2:
        raise StudyError(
            f"{readme}: expected one line {START} and below it one line {END}, found {text.count(START)} and "
            f"{text.count(END)}; put them where the findings are to stand"
        )
    partial = readme.with_name(f"{readme.name}.part")
    partial.write_text(f"{before}{START}\n{block(study)}\n{END}{after}", encoding="utf-8", newline="\n")
    return partial.replace(readme)


def block(study: Study) -> str:
    """What the study found, as Markdown: rows on the floor, floors, claims, how far the runs are, and the figure.

    Raises:
        StudyError: The report has no floors.
    """
    study = study.model_copy(update={"train_missing": False})
    runs, floor = every_family(study), floors.gathered(study)
    found = findings.on_the_floor(overview.rows(runs), floor["accuracy"])
    dice = tables.published_row("loss", "DICE")
    constant = (
        f"The Dice loss of that predictor is {floor['dice_loss']:.4f} and its AUC {floor['auc']:.4f}; the published "
        f"row DICE has {dice['loss']:.4f} and {dice['auc']:.4f}. The lowest binary cross-entropy "
        f"that a constant probability of lesion reaches is {floor['bce']:.4f}."
    )
    answers = heldout.every_family(study)
    held_out = overview.held_out(answers, claims.table(answers))
    progress = findings.progress(findings.distinct(runs), study.epochs)
    figure = f"![{findings.plain(found)}](reports/{study.profile}/figures/rows-against-floor.svg)"
    return "\n\n".join([found, constant, held_out, f"Profile `{study.profile}`: {progress}", figure])
