"""Pages and the index, from notebooks written by hand as papermill would leave them."""

import base64
import hashlib
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from busi.config import ROOT, StudyError
from busi.report import pages

STEMS = ["0_dataset", "3_loss", "6_summary"]
VOID = {"br", "hr", "img", "input", "link", "meta", "source", "wbr", "col"}
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTRvhQAAAABJRU5ErkJggg=="


class Audit(HTMLParser):
    """Refuses tags that do not nest and names given twice; gathers what a browser would load."""

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


def code(source, *outputs, tags=(), count=1):
    return new_code_cell(source, outputs=list(outputs), execution_count=count, metadata={"tags": list(tags)})


def shown(**data):
    return new_output("display_data", data={key.replace("_", "/"): value for key, value in data.items()})


def written(folder: Path, *cells, parameters=None) -> Path:
    """A notebook with a title and then ``cells``."""
    nb = new_notebook(
        cells=[new_markdown_cell("# Which loss?\n\nWhat *Table 3* says."), *cells],
        metadata={"papermill": {"parameters": parameters or {}, "output_path": str(folder / "out.ipynb")}},
    )
    path = folder / "executed.ipynb"
    nbformat.write(nb, path)
    return path


def rendered(folder: Path, *cells, profile="laptop", **more) -> BeautifulSoup:
    out = pages.page(written(folder, *cells, **more), folder / "3_loss.html", profile=profile, pages=STEMS)
    return BeautifulSoup(out.read_text(encoding="utf-8"), "html.parser")


def study(folder: Path) -> tuple:
    """Cells as a family's notebook has them."""
    figure = f'<figure><img src="data:image/png;base64,{DOT}" alt="Two curves."><figcaption>7.</figcaption></figure>'
    return (
        code("seeds: list[int] = [0]", tags=["parameters"]),
        code(f'data_dir = "{folder}/BUSI"', tags=["injected-parameters"]),
        code(
            "runs = study.runs()",
            new_output("stream", name="stderr", text="50%|#####     | 1/2"),
            new_output("stream", name="stdout", text=f"reading {folder}/BUSI\nrun {ROOT}/runs/kld\n"),
        ),
        new_markdown_cell(
            "## Table 3\n\n| loss | AUC |\n|---|---|\n| KLD | 0.985 |\n\nSee [Distill](https://distill.pub)."
        ),
        code("figure(...)", shown(text_html=figure, text_plain="<IPython.core.display.HTML object>")),
        new_markdown_cell("## Table 3\n\n### What it means"),
        code("Markdown(...)", shown(text_markdown="KLD is\n**BCE** here.\n\nMore below."), tags=["finding"]),
    )


@pytest.mark.parametrize("profile", ["smoke", "laptop"])
def test_a_page_is_well_formed_and_loads_nothing(tmp_path, profile):
    soup = rendered(tmp_path, *study(tmp_path), profile=profile)
    html = (tmp_path / "3_loss.html").read_text(encoding="utf-8")

    assert html.startswith("<!DOCTYPE html>")
    audit = Audit(html)
    assert [address[:5] for address in audit.loaded] == ["data:", "data:"]  # the icon and the figure
    assert soup.html["lang"] == "en"
    assert soup.title.string == f"Which loss? · BUSI study, {profile}"
    assert soup.find("a", string="Distill")["href"] == "https://distill.pub"


def test_only_the_page_s_own_scripts_may_run(tmp_path):
    soup = rendered(tmp_path, *study(tmp_path))
    digests = [base64.b64encode(hashlib.sha256(tag.string.encode()).digest()).decode() for tag in soup.select("script")]
    policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert re.findall("script-src (.*)", policy) == [" ".join(f"'sha256-{digest}'" for digest in digests)]
    assert len(digests) == 2


def test_the_title_stands_above_the_parameters(tmp_path):
    title = new_markdown_cell("# Which loss?\n\nWhat *Table 3* says.")
    cells = [
        code("seeds = [0]", tags=["parameters"]),
        new_markdown_cell("Beforehand."),
        title,
        new_markdown_cell("On."),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "parameters-first.ipynb")
    out = pages.page(tmp_path / "parameters-first.ipynb", tmp_path / "3_loss.html", profile="laptop", pages=STEMS)
    main = BeautifulSoup(out.read_text(encoding="utf-8"), "html.parser").main
    texts = [" ".join(part.get_text().split()) for part in main.find_all(recursive=False)]
    assert texts == [
        "Which loss? What Table 3 says.",
        "Parameters and their defaults seeds = [0]",
        "Beforehand.",
        "On.",
    ]


def test_the_navigation_leads_to_every_page_and_marks_this_one(tmp_path):
    entries = rendered(tmp_path).header.find_all("a")
    assert [(a["href"], a.string) for a in entries] == [
        ("index.html", "Overview"),
        ("0_dataset.html", "0 Dataset"),
        ("3_loss.html", "3 Loss"),
        ("6_summary.html", "6 Summary"),
    ]
    assert [a["href"] for a in entries if a.get("aria-current") == "page"] == ["3_loss.html"]


def test_the_contents_lead_to_each_heading_even_where_two_read_alike(tmp_path):
    soup = rendered(tmp_path, *study(tmp_path))
    links = [a["href"] for a in soup.aside.find_all("a")]
    assert links == ["#table-3", "#table-3-2", "#what-it-means"]
    assert [soup.select_one(link).get_text() for link in links] == ["Table 3", "Table 3", "What it means"]


def test_code_is_folded_cell_by_cell_and_one_switch_stands_for_all(tmp_path):
    soup = rendered(tmp_path, *study(tmp_path), new_markdown_cell("Text."), code(" \n"))
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
    assert rendered(tmp_path, new_markdown_cell("No code.")).select("#show-code") == []


def test_progress_bars_and_empty_outputs_are_left_out(tmp_path):
    bar = {"application/vnd.jupyter.widget-view+json": {"model_id": "0"}, "text/plain": "100%|####| fold 1"}
    soup = rendered(
        tmp_path,
        code(
            "train()",
            new_output("stream", name="stderr", text="epoch 3 of 75"),
            new_output("stream", name="stdout", text="\n"),
            new_output("display_data", data=bar),
            new_output("display_data", data={}),
        ),
        code("print(1)", new_output("stream", name="stdout", text="a < b")),
    )
    assert [block.get_text(strip=True) for block in soup.select(".output")] == ["a < b"]


def test_no_folder_of_this_machine_is_shown(tmp_path):
    soup = rendered(tmp_path, *study(tmp_path), parameters={"data_dir": f"{tmp_path}/BUSI", "seeds": [0]})
    html = str(soup)
    assert str(tmp_path) not in html
    assert str(ROOT) not in html
    assert str(Path.home()) not in html
    assert 'data_dir = "…/BUSI"' in soup.get_text()
    assert "reading …/BUSI\nrun ./runs/kld" in soup.get_text()


def test_an_embedded_image_that_spells_a_folder_stays_whole(tmp_path):
    home = str(Path.home())
    image = f'<img src="data:image/png;base64,AAAA{home}/AAA=" alt="Dots."> {home}/x'
    soup = rendered(tmp_path, code("show()", shown(text_html=image)))
    assert soup.main.img["src"] == f"data:image/png;base64,AAAA{home}/AAA="
    assert "~/x" in soup.main.get_text()


def test_a_table_scrolls_in_a_box_can_be_copied_and_is_sorted_where_it_has_rows_to_sort(tmp_path):
    boxed = """<div class="scroll"><table class="wide"><thead><tr><th class="number">our <em>loss</em></th></tr></thead>
        <tbody><tr><td>1</td></tr><tr><td>2</td></tr></tbody></table></div>"""
    single, several = rendered(tmp_path, *study(tmp_path), code("table()", shown(text_html=boxed))).find_all("table")
    for table in (single, several):
        assert len(table.find_parents(class_="scroll")) == 1
        assert [button.string for button in table.find_parent(class_="table").select("button.copy")] == ["Copy"]
    assert single.get("class") is None
    assert single.find("button") is None
    assert several["class"] == ["wide", "sortable", "asc", "n-last"]
    assert str(several.th) == ('<th class="number"><button class="sort" type="button">our <em>loss</em></button></th>')


def test_a_keyboard_reaches_preformatted_text_but_not_code_which_is_wrapped(tmp_path):
    body = rendered(tmp_path, *study(tmp_path), new_markdown_cell("    BCE = KLD"), code("train()")).main
    assert [block.get("tabindex") for block in body.select("pre") if "BCE" in block.get_text()] == ["0"]
    assert {block.get("tabindex") for block in body.select(".highlight pre")} == {None}


def test_an_image_shown_without_html_keeps_its_alternative_text(tmp_path):
    output = new_output("display_data", data={"image/png": DOT}, metadata={"image/png": {"alt": 'a "dot"'}})
    image = rendered(tmp_path, code("fig", output)).main.img
    assert (image["alt"], image["src"]) == ('a "dot"', f"data:image/png;base64,{DOT}")


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        (shown(image_png=DOT), "no alternative text"),
        (shown(text_html=f'<img src="data:image/png;base64,{DOT}">'), "no alternative text"),
        (shown(text_html=f'<img src="data:image/png;base64,{DOT}" alt=" ">'), "no alternative text"),
        (shown(text_html='<img src="https://example.org/a.png" alt="A.">'), "https://example.org/a.png lies outside"),
    ],
)
def test_an_image_nobody_can_read_or_load_is_refused(tmp_path, output, complaint):
    with pytest.raises(StudyError, match=complaint):
        rendered(tmp_path, code("show()", output))
    assert not list(tmp_path.glob("3_loss.html*"))


def test_a_cell_that_failed_is_refused_by_name(tmp_path):
    error = new_output("error", ename="KeyError", evalue="'auc'", traceback=["..."])
    with pytest.raises(StudyError, match=r"executed\.ipynb: cell 3 \('table\(runs\)'\) failed with KeyError: 'auc'"):
        rendered(tmp_path, code("runs = 1"), code("table(runs)\nshow()", error))
    assert not list(tmp_path.glob("3_loss.html*"))


def test_a_cell_that_never_ran_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"cell 2 \('train\(\)'\) was not run"):
        rendered(tmp_path, code("train()", count=None))


def test_a_page_that_nobody_would_wait_for_is_refused(tmp_path):
    image = f'<img src="data:image/png;base64,{"A" * pages.LIMIT}" alt="Dots.">'
    with pytest.raises(StudyError, match=r"3_loss\.html: would have 2,0\d\d,\d{3} bytes, the limit is 2,000,000; show"):
        rendered(tmp_path, code("show()", shown(text_html=image)))
    assert not list(tmp_path.glob("3_loss.html*"))


def test_a_missing_notebook_or_title_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"gone\.ipynb: no such notebook"):
        pages.page(tmp_path / "gone.ipynb", tmp_path / "gone.html", profile="smoke", pages=[])
    nbformat.write(new_notebook(cells=[new_markdown_cell("## No title")]), tmp_path / "untitled.ipynb")
    with pytest.raises(StudyError, match=r"untitled\.ipynb: has no title"):
        pages.page(tmp_path / "untitled.ipynb", tmp_path / "untitled.html", profile="smoke", pages=[])


def test_only_a_smoke_report_says_that_its_numbers_mean_nothing(tmp_path):
    assert "these numbers mean nothing" in rendered(tmp_path, profile="smoke").header.get_text()
    assert "these numbers mean nothing" not in rendered(tmp_path, profile="laptop").get_text()


def test_a_notebook_gives_the_same_bytes_every_time(tmp_path):
    rendered(tmp_path, *study(tmp_path))
    first = (tmp_path / "3_loss.html").read_bytes()
    rendered(tmp_path, *study(tmp_path))
    assert (tmp_path / "3_loss.html").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3_loss.html", "executed.ipynb"]


@pytest.fixture
def report(tmp_path):
    """A report's folder with two pages, of which one states a finding, and two tables."""
    rendered(tmp_path, *study(tmp_path))
    shutil.copy(tmp_path / "3_loss.html", tmp_path / "0_dataset.html")
    pages.page(written(tmp_path), tmp_path / "6_summary.html", profile="laptop", pages=STEMS)
    (tmp_path / "tables").mkdir()
    for name in ("table3.csv", "floors.csv"):
        (tmp_path / "tables" / name).write_text("floor,value\n")
    return tmp_path


def indexed(folder: Path, **changes) -> BeautifulSoup:
    content = {
        "profile": "laptop",
        "pages": STEMS,
        "title": "The study",
        "question": "Does *it* work?",
        "answer": "Six rows are **at** the floor.\n\n| row | AUC |\n|---|---|\n| KLD | 0.9 |",
        "size": {"Images": "647 & masks"},
        "made": {"Software": "Keras 3.15.1"},
        "commands": {"Draw": "busi render reports/laptop", "Train": "make study PROFILE=laptop"},
    }
    out = pages.index(folder, **content | changes)
    assert out == folder / "index.html"
    return BeautifulSoup(out.read_text(encoding="utf-8"), "html.parser")


def test_the_index_names_each_page_with_its_question_and_its_finding(report):
    soup = indexed(report)
    entries = [(li.a["href"], li.a.string, *(p.string for p in li.find_all("p"))) for li in soup.select(".pages > li")]
    assert entries == [
        ("0_dataset.html", "Which loss?", "What Table 3 says.", "KLD is BCE here."),
        ("3_loss.html", "Which loss?", "What Table 3 says.", "KLD is BCE here."),
        ("6_summary.html", "Which loss?", "What Table 3 says."),
    ]


def test_the_index_says_why_a_page_is_not_there_and_does_not_lead_to_it(report):
    soup = indexed(report, absent={"7 Gallery": "it shows pixels of BUSI."})
    assert "7 Gallery is not in this report: it shows pixels of BUSI." in soup.main.get_text()
    assert not [a for a in soup.find_all("a") if "allery" in str(a)]
    assert "is not in this report" not in indexed(report).get_text()


def test_the_index_holds_the_claims_among_its_contents(report):
    soup = indexed(report, claims="<table><tr><td>KLD is best</td></tr></table>")
    headings = [a.string for a in soup.aside.find_all("a")]
    assert headings == [
        *("What the paper claims", "Pages", "Tables", "Data and size", "How it was made", "Make it again"),
    ]
    assert soup.find("td", string="KLD is best").find_parent(class_="scroll")
    assert "What the paper claims" not in indexed(report, claims="").get_text()


def test_the_index_is_well_formed_and_every_link_of_it_leads_somewhere(report):
    soup = indexed(report)
    html = (report / "index.html").read_text(encoding="utf-8")
    assert Audit(html).loaded == ["data:,"]
    links = {a["href"] for a in soup.find_all("a")}
    assert {"tables/floors.csv", "tables/table3.csv"} < links
    assert all((report / link).is_file() for link in links if not link.startswith("#"))
    assert soup.header.find("a", attrs={"aria-current": "page"})["href"] == "index.html"


def test_the_index_says_what_the_study_is_and_how_to_make_it_again(report):
    soup = indexed(report)
    assert soup.h1.string == "The study"
    assert soup.main.em.string == "it"
    assert soup.select_one(".finding strong").string == "at"
    assert soup.main.table.find_parent(class_="scroll")
    assert [(dt.string, dt.find_next("dd").string) for dt in soup.find_all("dt")] == [
        ("Images", "647 & masks"),
        ("Software", "Keras 3.15.1"),
    ]
    commands = [pre.get_text() for pre in soup.find_all("pre")]
    assert commands == ["busi render reports/laptop", "make study PROFILE=laptop"]
    assert "these numbers mean nothing" in indexed(report, profile="smoke").get_text()


def test_the_index_embeds_its_pictures(report):
    (report / "rows.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    soup = indexed(report, pictures=[pages.Picture(report / "rows.svg", "Nine <rows>.", "Against the floor")])
    image = soup.figure.img
    assert image["src"] == "data:image/svg+xml;base64,PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciLz4="
    assert image["alt"] == "Nine <rows>."
    assert soup.figcaption.string == "Against the floor"


@pytest.mark.parametrize(
    ("name", "alt", "complaint"),
    [
        ("gone.svg", "Rows.", "no such picture"),
        ("rows.jpg", "Rows.", r"got '\.jpg'; expected \.svg or \.png"),
        ("rows.svg", "  ", "no alternative text"),
    ],
)
def test_a_picture_that_cannot_be_shown_is_refused(report, name, alt, complaint):
    for file in ("rows.jpg", "rows.svg"):
        (report / file).write_bytes(b"")
    with pytest.raises(StudyError, match=complaint):
        indexed(report, pictures=[pages.Picture(report / name, alt, "")])
    assert not (report / "index.html").exists()


def test_an_index_of_a_page_that_is_not_there_is_refused(report):
    with pytest.raises(StudyError, match=r"4_data\.html: no such page"):
        indexed(report, pages=[*STEMS, "4_data"])
    assert not (report / "index.html").exists()
