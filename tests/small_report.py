"""A small study with a report whose findings, tables and figures are written by hand."""

import shutil
from pathlib import Path

import nbformat
import pandas as pd
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from busi import config, results
from busi.config import Parameters
from busi.published import distinct_rows

REPOSITORY = Path(__file__).resolve().parents[1]

STEMS = ["0_dataset", "3_loss", "6_summary"]
"""Pages of the small study."""

SUMMARY = {
    "answer": ["**Six of nine** rows.", "None of five claims."],
    "details": ["**Dice** is 0.5."],
    "rows": "6 of the 9 distinct published rows have the accuracy of **background** (0.9083): DICE & *BCE*.",
    "progress": "9 runs have been trained under this profile, for 75 epochs.",
    "ladder": "From 0.9251 the steps lead to a Dice of **0.70**.",
    "size": {"Images": "7, of which 6 with a lesion & more", "Epochs": "75 (published: 75)"},
    "made": {"Machine": "2 cores, no GPUs"},
}
"""Facts that the summary notebook records."""

CLAIMS = pd.DataFrame(
    {
        "claim": [
            f"{number}. {loss} is the best of all the losses that were tried" for number, loss in enumerate("KBDFT", 1)
        ],
        "title": "KLD is not the best loss",
        "verdict": ["not upheld", "upheld", "undecided", "not upheld", "not upheld"],
        "reason": "KLD − DICE −0.010 Dice",
        "size": "64 pixels",
        "evidence": "KLD is as good as BCE. " * 20,
        "second_verdict": ["upheld", *[""] * 4],
        "second_reason": ["KLD minus DICE: +0.020 Dice", *[""] * 4],
        "second_size": ["128 pixels", *[""] * 4],
        "second_evidence": "",
    }
)

COUNTS = pd.DataFrame({"table": ["1 Upsampling"], "rows": [2], "reproduced": [1], "no better than blind": [0]})


PROGRESS = pd.DataFrame({"experiment": ["published rows"], "trained": [9], "planned": [27]})


def make_study_with_pages(folder: Path) -> None:
    """Make a study with the parameters of this one and empty notebooks of the pages `STEMS`."""
    shutil.copytree(REPOSITORY / "params", folder / "params")
    (folder / "notebooks").mkdir()
    for stem in (*reversed(STEMS), "scratch"):
        (folder / "notebooks" / f"{stem}.ipynb").write_text("{}", encoding="utf-8")


def read_parameters(profile: str = "laptop", **overrides) -> Parameters:
    """Read a profile of the study in the current folder."""
    return config.read_profile(profile, train_missing=False, **overrides)


def record_summary(parameters: Parameters, **changes) -> None:
    """Write findings, tables and figures as the summary notebook does."""
    results.record_finding(parameters, "summary", **(SUMMARY | changes))
    results.write_table(parameters, "claims", CLAIMS)
    results.write_table(parameters, "counts", COUNTS)
    results.write_table(parameters, "progress", PROGRESS)
    results.write_table(parameters, "floors", pd.DataFrame({"floor": ["auc"], "value": [0.907]}))
    figures = parameters.report_path / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    # As wide and as high as those that the notebooks draw, with two sizes and three differences.
    sizes = {"rows-against-blind": (864, 442), "rows-against-blind-narrow": (403, 672), "ladder": (768, 710)}
    sizes |= {f"claim-{number}": (422, 269) for number in range(1, 6)}
    for name, (width, height) in sizes.items():
        box = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        text = f'<svg xmlns="http://www.w3.org/2000/svg" {box}><title>{name}</title></svg>'
        (figures / f"{name}.svg").write_text(text, encoding="utf-8")


def code_cell(source: str, *outputs: NotebookNode, tags=(), count: int | None = 1) -> NotebookNode:
    """Return a code cell as it is after its execution."""
    return new_code_cell(source, outputs=list(outputs), execution_count=count, metadata={"tags": list(tags)})


def shown(**data: str) -> NotebookNode:
    """Return an output that shows ``data``, e.g. ``text_html="<p>...</p>"``."""
    by_kind = {name.replace("_", "/"): content for name, content in data.items()}
    return new_output("display_data", data=by_kind)


def write_notebook(file: Path, *cells: NotebookNode, parameters: dict | None = None) -> Path:
    """Write a notebook as papermill leaves it."""
    metadata = {"papermill": {"parameters": parameters or {}, "output_path": str(file)}}
    nbformat.write(new_notebook(cells=list(cells), metadata=metadata), file)
    return file


def make_blind() -> pd.DataFrame:
    """Make blind scores of every row: biases from 0.3066 to 0.3070 in loss and 0.9026 to 0.9088 in AUC; mean mask."""
    constants = {"DICE": 0.091565, "KLD": 0.308998}
    rows = []
    for row in distinct_rows().row:
        constant = constants.get(row, 0.306562)
        for predictor, order, loss, auc in (
            ("constant", "any", (constant, constant), (0.906965, 0.906965)),
            # Those by class reach everything, and must not count.
            ("two biases", "by class", (0.0, 1.0), (0.0, 1.0)),
            ("two biases", "mixed", (0.3066, 0.30704), (0.9026, 0.9088)),
            ("mean mask", "any", (0.2393, 0.2393), (0.96364, 0.96364)),
        ):
            ends = {"loss_low": loss[0], "loss_high": loss[1], "auc_low": auc[0], "auc_high": auc[1]}
            ends |= {"accuracy_low": 0.908252, "accuracy_high": 0.908252}
            rows.append({"predictor": predictor, "row": row, "order": order} | ends)
    return pd.DataFrame(rows)
