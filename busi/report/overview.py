"""The index of a report: what the study asks, what it found, how big it was and how to make it again."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from busi.config import BORDER, GALLERY, RunConfig, Study
from busi.dataset import catalog
from busi.evaluation import floors
from busi.mechanisms import ladder
from busi.report import claims, display, figures, findings, heldout, mechanisms, pages, tables
from busi.report.display import STYLE
from busi.report.heldout import Answers
from busi.runs import Run
from busi.study import Runs, every_family

QUESTION = (
    "A student paper trained a U-Net on BUSI, breast ultrasound images with lesion masks, and compared upsampling "
    "layers, optimizers, losses and preprocessing in four small tables (Duffy, Hassan, Kim: *Breast Ultrasound Image "
    "Segmentation Analysis*, 2024). This report rebuilds those tables as they were made, training metrics and faults "
    "included, and sets each row beside its floor: what a predictor scores that never looks at the image. Then it asks "
    "the same questions on images held out from training."
)


def rows(runs: dict[str, Runs]) -> pd.DataFrame:
    """The nine distinct published rows with our accuracy, the mean over a row's runs, as `ours`."""
    found = tables.distinct_rows()
    ours = [
        pd.Series([run.metrics["training"]["accuracy"] for run in runs[row.family].get(row.method, [])], dtype=float)
        for row in found.itertuples()
    ]
    return found.assign(ours=[values.mean() for values in ours])


def write(study: Study):
    """Write ``reports/<profile>/index.html`` from what the report has gathered.

    A page that has not been written is named as missing.

    Raises:
        StudyError: Floors or images have not been gathered.
    """
    runs, floor = every_family(study), floors.gathered(study)
    found, answers = rows(runs), heldout.every_family(study)
    verdicts = claims.table(answers)
    distinct = findings.distinct(runs)
    scored = findings.distinct({name: answer.runs for name, answer in answers.items()})
    written = [stem for stem in study.pages if (study.report_path / f"{stem}.html").is_file()]
    return pages.index(
        study.report_path,
        profile=study.profile,
        pages=written,
        title="Breast ultrasound segmentation: a published study rebuilt",
        question=QUESTION,
        answer="\n\n".join(
            [findings.on_the_floor(found, floor["accuracy"]), blind(floor, distinct), held_out(answers, verdicts)]
        ),
        size=_size(study, distinct),
        made=made([*distinct, *scored]),
        commands=_commands(study),
        pictures=[_headline(study, found, floor["accuracy"]), *_ladder(study)],
        claims=display.table(verdicts, caption="Each claim, what was published, our held-out answer and verdict.").data,
        absent=_absent(study, written),
    )


def blind(floor: dict[str, float], runs: list[Run]) -> str:
    """What the published Dice row shares with a predictor that never looks, and how many of our runs see a lesion.

    Args:
        floor: As `busi.evaluation.floors.of`.
        runs: Each once.
    """
    dice = tables.published_row("loss", "DICE")
    text = (
        f"The Dice loss of that predictor is {floor['dice_loss']:.4f} and its AUC {floor['auc']:.4f}; the published "
        f"row DICE has {dice['loss']:.4f} and {dice['auc']:.4f}."
    )
    if runs:
        seeing = sum(run.metrics["still"]["lesion_share"] > 0 for run in runs)
        text += (
            " Networks trained here that call any pixel of their training images lesion once the weights are held "
            f"still: {seeing or 'none'} of {len(runs)}."
        )
    return text


def held_out(answers: dict[str, Answers], verdicts: pd.DataFrame) -> str:
    """What became of the claims, and how far the held-out runs are.

    Args:
        answers: Of all families.
        verdicts: As `busi.report.claims.table`.
    """
    finished, planned = (
        frozenset.union(*(getattr(each, name) for each in answers.values())) for name in ("finished", "planned")
    )
    return f"{claims.summed_up(verdicts)} {findings.heldout_progress(len(finished), len(planned))}"


def made(runs: list[Run]) -> dict[str, str]:
    """When, on what and with which software ``runs`` were trained, as they recorded it; nothing without a run.

    And how many of them by training code that has changed meaning since, if any.
    """
    if not runs:
        return {}
    environments = [run.environment for run in runs]
    days = sorted({found["finished"] for found in environments if "finished" in found})
    hours = sum(run.metrics["seconds"] for run in runs) / 3600
    superseded = sum(run.superseded for run in runs)
    facts = {
        "Trained": " to ".join(dict.fromkeys([days[0], days[-1]])) if days else "",
        "Training time": f"{hours:.1f} hours in {len(runs)} runs",
        "Training code": superseded and f"{superseded} of {len(runs)} runs by an earlier version, whose numbers differ",
        "Machine": "; ".join(dict.fromkeys(map(_machine, environments))),
        "Software": "; ".join(dict.fromkeys(map(_software, environments))),
    }
    return {name: fact for name, fact in facts.items() if fact}


def _machine(environment: dict) -> str:
    gpus = environment["gpus"] or "no"
    return (
        f"{environment['processor']}, {environment['cores']} cores ({environment['threads']} used by a run), "
        f"{gpus} GPU{'' if gpus == 1 else 's'}"
    )


def _software(environment: dict) -> str:
    backend = environment["backend"]
    return (
        f"Python {environment['python']}, Keras {environment['keras']} on {backend} {environment[backend]}, "
        f"NumPy {environment['numpy']}"
    )


def _absent(study: Study, written: list[str]) -> dict[str, str]:
    absent = {pages.label(stem): "it has not been drawn." for stem in study.pages if stem not in written}
    if study.show_pixels:
        return absent
    return absent | {
        pages.label(GALLERY): "it shows images of the data set, which are not ours to publish. The last section says "
        "how to draw it where the data and the trained networks are."
    }


def _size(study: Study, runs: list[Run]) -> dict[str, str]:
    images = catalog.gathered(study)
    return {
        "Images": f"{len(images)}, of which {(images.image_class != 'normal').sum()} with a lesion are trained on",
        "Data": "phantom: synthetic images" if study.data_dir == "phantom" else "BUSI",
        "Input and output": f"{study.image_size}² and {study.image_size - BORDER}² pixels",
        "Network": f"{study.base_filters} to {16 * study.base_filters} filters (published: 64 to 1024)",
        "Epochs": f"{study.epochs} (published: 75), batches of one image",
        "Arithmetic": study.precision,
        "Runs": findings.progress(runs, study.epochs),
        "Held-out runs": _heldout_size(study),
    }


def _heldout_size(study: Study) -> str:
    """Of the protocol's baseline, of which every other held-out run is a change."""
    run = RunConfig(protocol="heldout", **study.heldout)
    return (
        f"{run.image_size}² pixels, aspect ratio kept, {run.base_filters} to {16 * run.base_filters} filters, at most "
        f"{run.epochs} epochs in batches of {run.batch_size}; scored at each image's own size"
    )


def _commands(study: Study) -> dict[str, str]:
    data = "" if study.data_dir == "phantom" else " DATA=/path/to/Dataset_BUSI_with_GT"
    given = f"PROFILE={study.profile}{data}"
    return {
        "Draw these pages again from the committed results, without data or training": (
            f"busi render reports/{study.profile}"
        ),
        "Train what is missing, then draw them": f"make study {given}",
        "Draw the gallery: each variant's best, median and worst cases, for yourself": f"make gallery {given}",
    }


def _headline(study: Study, found: pd.DataFrame, floor: float) -> pages.Picture:
    with plt.style.context(STYLE):
        fig = figures.rows_against_floor(found, floor)
    return pages.Picture(
        _saved(study, "rows-against-floor", fig),
        alt=findings.plain(findings.on_the_floor(found, floor)),
        caption="Accuracy on the training images of the nine distinct published rows, and of ours, against the "
        "accuracy of calling every pixel background.",
    )


def _ladder(study: Study) -> list[pages.Picture]:
    """From the published number to the held-out one; nothing where no rung has been scored."""
    rungs = ladder.measured(study)
    if rungs is None:
        return []
    found, published = ladder.table(rungs), tables.published_row("upsampling", "Upsampling2D")
    return [
        pages.Picture(
            _saved(study, "ladder", mechanisms.waterfall(found, published)),
            alt=findings.plain(ladder.conclusion(found, published)),
            caption="From the published number (star) to the held-out one in single steps, each with the 95 % interval "
            "of its change; dashed, background everywhere on the same images.",
        )
    ]


def _saved(study: Study, name: str, fig: Figure) -> Path:
    """The figure as ``figures/<name>.svg`` of the report: the same bytes every time."""
    file = study.report_path / "figures" / f"{name}.svg"
    file.parent.mkdir(parents=True, exist_ok=True)
    with plt.style.context(STYLE):
        fig.savefig(file, metadata={"Creator": None, "Date": None})
    plt.close(fig)
    return file
