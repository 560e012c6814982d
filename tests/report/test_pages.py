"""Pages made of notebooks that are written by hand, as papermill would leave them."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_markdown_cell, new_output
from small_report import code_cell, make_study_with_pages, read_parameters, shown, write_notebook

from busi.config import StudyError
from busi.report import layout, pages

VOID = {"br", "hr", "img", "input", "link", "meta", "source", "wbr", "col"}
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTRvhQAAAABJRU5ErkJggg=="
TITLE = new_markdown_cell("# Which loss?\n\nWhat *Table 3* says.")


class Audit(HTMLParser):
    """Refuses tags that do not nest and ids given twice; collects what a browser would load."""

    def __init__(self, html):
        super().__init__()
        self.open, self.ids, self.loaded = [], set(), []
        self.feed(html)
        self.close()
        assert self.open == []
        self.loaded += re.findall(r"url\(\s*['\"]?([^)'\"]*)|@import\s+['\"]([^'\"]*)", html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            assert attributes["id"] not in self.ids
            self.ids.add(attributes["id"])
        self.loaded += [attributes[name] for name in ("src", "srcset", "data", "poster") if name in attributes]
        if tag == "link":
            self.loaded.append(attributes["href"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in VOID
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(autouse=True)
def study(tmp_path, monkeypatch) -> Path:
    """A study in the current folder."""
    folder = tmp_path / "study"
    make_study_with_pages(folder)
    monkeypatch.chdir(folder)
    return folder


def report() -> Path:
    return read_parameters().report_path


def draw_page(*cells, given=None, out: Path | None = None, **overrides) -> BeautifulSoup:
    """Write a notebook with a title and ``cells``, draw it as a page, and read the page."""
    notebook = write_notebook(Path("executed.ipynb"), TITLE, *cells, parameters=given)
    written = pages.write_page(notebook, out or report() / "3_loss.html", parameters=read_parameters(**overrides))
    return BeautifulSoup(written.read_text(encoding="utf-8"), "html.parser")


def family_cells(folder: Path) -> tuple:
    """Cells like those of a family's notebook."""
    figure = f'<figure><img src="data:image/png;base64,{DOT}" alt="Two curves."><figcaption>7.</figcaption></figure>'
    return (
        code_cell("seeds: list[int] = [0]", tags=["parameters"]),
        code_cell(f'data_dir = "{folder}/BUSI"', tags=["injected-parameters"]),
        code_cell(
            "runs = study.runs()",
            new_output("stream", name="stderr", text="50%|#####     | 1/2"),
            new_output("stream", name="stdout", text=f"reading {folder}/BUSI\nrun {folder}/study/runs/kld\n"),
        ),
        new_markdown_cell(
            "## Table 3\n\n| loss | AUC |\n|---|---|\n| KLD | 0.985 |\n\nSee [Distill](https://distill.pub)."
        ),
        code_cell("figure(...)", shown(text_html=figure, text_plain="<IPython.core.display.HTML object>")),
        new_markdown_cell("## Table 3\n\n### What it means"),
        code_cell("Markdown(...)", shown(text_markdown="KLD is\n**BCE** here.\n\nMore below."), tags=["finding"]),
    )


def test_a_page_is_well_formed_and_loads_nothing(tmp_path):
    soup = draw_page(*family_cells(tmp_path))
    html = (report() / "3_loss.html").read_text(encoding="utf-8")
    assert html.startswith("<!DOCTYPE html>")
    audit = Audit(html)
    assert [address[:5] for address in audit.loaded] == ["data:", "data:"]  # the icon and the figure
    assert soup.find("a", string="Distill")["href"] == "https://distill.pub"


def test_profile_and_pages_are_those_of_the_parameters_whatever_the_folder_is_called(tmp_path):
    soup = draw_page(out=tmp_path / "elsewhere" / "3_loss.html")
    assert soup.title.string == "Which loss? · BUSI study, laptop"
    assert [a["href"] for a in soup.header.find_all("a")] == [
        "index.html",
        "0_dataset.html",
        "3_loss.html",
        "6_summary.html",
    ]
    smoke = draw_page(out=tmp_path / "laptop" / "3_loss.html", profile="smoke")
    assert smoke.title.string == "Which loss? · BUSI study, smoke"


def test_titles_are_recorded_for_the_index(tmp_path):
    draw_page(*family_cells(tmp_path))
    draw_page(out=report() / "0_dataset.html")
    findings = json.loads((report() / "findings.json").read_text(encoding="utf-8"))
    assert findings["pages"] == {"0_dataset": "Which loss?", "3_loss": "Which loss?"}


def test_the_report_of_another_name_gets_its_own_findings():
    draw_page(report="mine", out=report().with_name("mine") / "3_loss.html")
    assert (report().with_name("mine") / "findings.json").is_file()
    assert not (report() / "findings.json").exists()


@pytest.mark.parametrize("out", ["elsewhere/3_loss.html", "reports/laptop/gallery.html"])
def test_a_page_that_is_not_part_of_the_report_is_not_recorded(study, out):
    draw_page(out=study / out)
    assert (study / out).is_file()
    assert not (report() / "findings.json").exists()


def test_the_title_comes_before_the_parameters(tmp_path):
    cells = [code_cell("seeds = [0]", tags=["parameters"]), new_markdown_cell("Beforehand."), TITLE]
    notebook = write_notebook(tmp_path / "parameters-first.ipynb", *cells, new_markdown_cell("After it."))
    out = pages.write_page(notebook, tmp_path / "3_loss.html", parameters=read_parameters())
    main = BeautifulSoup(out.read_text(encoding="utf-8"), "html.parser").main
    texts = [" ".join(part.get_text().split()) for part in main.find_all(recursive=False)]
    assert texts == [
        "Which loss? What Table 3 says.",
        "Parameters and their defaults seeds = [0]",
        "Beforehand.",
        "After it.",
    ]


def test_code_is_folded_cell_by_cell_and_one_switch_opens_all_of_it(tmp_path):
    soup = draw_page(*family_cells(tmp_path), new_markdown_cell("Text."), code_cell(" \n"))
    blocks = soup.select("details.code")
    assert [block.summary.get_text() for block in blocks] == [
        "Parameters and their defaults",
        "Parameters of this run",
        "Code",
        "Code",
        "Code",
    ]
    assert not any(block.has_attr("open") for block in blocks)
    assert blocks[2].pre.get_text().strip() == "runs = study.runs()"
    assert len(soup.select("label input#show-code")) == 1
    assert draw_page(new_markdown_cell("No code.")).select("#show-code") == []


def test_progress_bars_and_empty_outputs_are_left_out():
    bar = {"application/vnd.jupyter.widget-view+json": {"model_id": "0"}, "text/plain": "100%|####| fold 1"}
    soup = draw_page(
        code_cell(
            "train()",
            new_output("stream", name="stderr", text="epoch 3 of 75"),
            new_output("stream", name="stdout", text="\n"),
            new_output("display_data", data=bar),
            new_output("display_data", data={}),
        ),
        code_cell("print(1)", new_output("stream", name="stdout", text="a < b")),
    )
    assert [block.get_text(strip=True) for block in soup.select(".output")] == ["a < b"]


def test_no_folder_of_this_machine_is_shown(tmp_path):
    home = str(Path.home())
    outputs = shown(text_plain=f"{home}/x"), shown(text_markdown="/elsewhere/runs/laptop")
    soup = draw_page(
        *family_cells(tmp_path),
        code_cell("show()", *outputs),
        given={"data_dir": f"{tmp_path}/BUSI", "seeds": [0]},
        runs_dir="/elsewhere/runs",  # as a profile may say, without papermill
    )
    html = str(soup)
    assert str(tmp_path) not in html
    assert home not in html
    assert "elsewhere" not in html
    text = soup.get_text()
    assert 'data_dir = "…/BUSI"' in text
    assert "reading …/BUSI\nrun ./runs/kld" in text
    assert "~/x" in text
    assert "…/runs/laptop" in text


def test_an_embedded_image_that_contains_a_folder_s_name_is_not_changed():
    home = str(Path.home())
    image = f'<img src="data:image/png;base64,AAAA{home}/AAA=" alt="Dots."> {home}/x'
    soup = draw_page(code_cell("show()", shown(text_html=image)))
    assert soup.main.img["src"] == f"data:image/png;base64,AAAA{home}/AAA="
    assert "~/x" in soup.main.get_text()


def test_an_image_shown_without_html_keeps_its_alternative_text():
    output = new_output("display_data", data={"image/png": DOT}, metadata={"image/png": {"alt": 'a "dot"'}})
    image = draw_page(code_cell("fig", output)).main.img
    assert (image["alt"], image["src"]) == ('a "dot"', f"data:image/png;base64,{DOT}")


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        (shown(image_png=DOT), "no alternative text"),
        (shown(text_html=f'<img src="data:image/png;base64,{DOT}">'), "no alternative text"),
        (shown(text_html=f'<img src="data:image/png;base64,{DOT}" alt=" ">'), "no alternative text"),
        (
            shown(text_html='<img src="https://example.org/a.png" alt="A.">'),
            "https://example.org/a.png is not embedded",
        ),
    ],
)
def test_an_image_that_a_reader_cannot_read_or_load_is_refused(output, complaint):
    with pytest.raises(StudyError, match=complaint):
        draw_page(code_cell("show()", output))
    assert not report().exists()


def test_a_cell_that_failed_is_named():
    error = new_output("error", ename="KeyError", evalue="'auc'", traceback=["..."])
    with pytest.raises(StudyError, match=r"executed\.ipynb: cell 3 \('table\(runs\)'\) failed with KeyError: 'auc'"):
        draw_page(code_cell("runs = 1"), code_cell("table(runs)\nshow()", error))
    assert not report().exists()


def test_a_cell_that_never_ran_is_refused():
    with pytest.raises(StudyError, match=r"cell 2 \('train\(\)'\) was not run"):
        draw_page(code_cell("train()", count=None))


def test_a_page_over_the_limit_is_neither_written_nor_recorded():
    image = f'<img src="data:image/png;base64,{"A" * layout.LIMIT}" alt="Dots.">'
    with pytest.raises(StudyError, match=r"the limit is 2,000,000"):
        draw_page(code_cell("show()", shown(text_html=image)))
    assert not report().exists()


def test_a_missing_notebook_or_title_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"gone\.ipynb: no such notebook"):
        pages.write_page(tmp_path / "gone.ipynb", tmp_path / "gone.html", parameters=read_parameters())
    untitled = write_notebook(tmp_path / "untitled.ipynb", new_markdown_cell("## No title"))
    with pytest.raises(StudyError, match=r"untitled\.ipynb: has no title"):
        pages.write_page(untitled, tmp_path / "untitled.html", parameters=read_parameters())


def test_a_notebook_gives_the_same_bytes_every_time(tmp_path):
    draw_page(*family_cells(tmp_path))
    first = {file.name: file.read_bytes() for file in report().iterdir()}
    draw_page(*family_cells(tmp_path))
    assert {file.name: file.read_bytes() for file in report().iterdir()} == first
