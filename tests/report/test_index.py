"""The index of a report, from findings, tables and figures that are written by hand."""

import contextlib
import shutil
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_markdown_cell
from small_report import STEMS, make_study_with_pages, read_parameters, record_summary, write_notebook

from busi import results
from busi.config import StudyError
from busi.report import index, pages, readme


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A study with a report whose notebooks have been run and whose pages are written."""
    folder = tmp_path_factory.mktemp("index")
    study = folder / "study"
    make_study_with_pages(study)
    with contextlib.chdir(study):
        parameters = read_parameters()
        record_summary(parameters)
        for stem in STEMS:
            notebook = write_notebook(folder / f"{stem}.ipynb", new_markdown_cell(f"# Title of {stem}"))
            pages.write_page(notebook, parameters.report_path / f"{stem}.html", parameters=parameters)
    return study


@pytest.fixture(autouse=True)
def study(written, tmp_path, monkeypatch) -> Path:
    """A copy of this study in the current folder, to be changed."""
    folder = shutil.copytree(written, tmp_path / "study")
    monkeypatch.chdir(folder)
    return folder


def read_index(**overrides) -> BeautifulSoup:
    out = index.write_index(read_parameters(**overrides))
    assert out == read_parameters(**overrides).report_path / "index.html"
    return BeautifulSoup(out.read_text(encoding="utf-8"), "html.parser")


def functions_called(function, *arguments) -> set[str]:
    """Return the functions of the package that a call of ``function`` calls, e.g. "busi.results.read_table"."""
    called = set()

    def note(frame, event, _):
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("busi."):
            called.add(f"{module}.{frame.f_code.co_name}")

    sys.setprofile(note)
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
    return called


def test_index_and_readme_read_what_notebooks_wrote_and_compute_nothing(study):
    file = study / "README.md"
    file.write_text(f"{readme.START}\n{readme.END}\n", encoding="utf-8")
    called = functions_called(index.write_index, read_parameters())
    called |= functions_called(readme.update_readme, read_parameters(), file)
    assert {"busi.results.read_findings", "busi.results.read_table"} <= called
    # `read_named` reads a table.
    called.remove("busi.dataset.catalog.read_named")
    computing = ("dataset", "mechanisms", "model", "scoring", "study", "training")
    assert [name for name in called if name.startswith(tuple(f"busi.{module}" for module in computing))] == []
    # What is not there is an error; it is not measured now.
    assert called.isdisjoint({"busi.results.measure", "busi.results.write_table"})


def test_the_index_opens_with_the_answer():
    answer = read_index().main.select_one(".finding")
    assert [" ".join(paragraph.get_text().split()) for paragraph in answer.find_all("p")] == [
        "Six of nine rows.",
        "None of five claims.",
    ]
    assert answer.strong.string == "Six of nine"
    figure = answer.find_next_sibling()
    details = figure.find_next_sibling()
    assert (figure.name, details.name, details.strong.string) == ("figure", "details", "Dice")


def test_the_index_embeds_the_figures_with_the_findings_as_alternative_text():
    headline, *cards, ladder = read_index().find_all("figure")
    assert len(cards) == 5
    assert headline.source["srcset"] not in (headline.img["src"], ladder.img["src"])
    assert headline.img["src"].startswith("data:image/svg+xml;base64,PHN2ZyB4bWxucz0i")
    assert headline.img["alt"].endswith("have the accuracy of background (0.9083): DICE & BCE.")
    assert ladder.img["alt"] == "From 0.9251 the steps lead to a Dice of 0.70."
    assert headline.img["src"] != ladder.img["src"]


def test_without_a_ladder_the_index_shows_the_rows_alone():
    findings = read_parameters().report_path / "findings.json"
    findings.unlink()
    record_summary(read_parameters())
    text = findings.read_text(encoding="utf-8")
    findings.write_text(text.replace('"ladder"', '"unknown"'), encoding="utf-8")
    assert len(read_index().find_all("figure")) == 6


def test_the_index_shows_each_claim_as_a_card_with_its_evidence_folded():
    first, second = read_index().select(".card")[:2]
    assert first.h3.string == "1. K is the best of all the losses that were tried"
    assert first.strong.string == "Not upheld"
    assert first.select_one(".second").string == "upheld at 128 pixels"
    assert second.select_one(".second") is None
    first_size, second_size = "At 64 pixels: KLD − DICE −0.010 Dice.", "At 128 pixels: KLD minus DICE: +0.020 Dice."
    assert first.img["alt"] == f"KLD is not the best loss. {first_size} {second_size}"
    assert [reason.string for reason in first.select(".reason")] == [
        "At 64 pixels: KLD − DICE −0.010 Dice.",
        "At 128 pixels, upheld: KLD minus DICE: +0.020 Dice.",
    ]
    assert "KLD is as good as BCE." in first.details.get_text()


def test_a_claim_without_any_run_has_no_figure_on_its_card():
    (read_parameters().report_path / "figures" / "claim-3.svg").unlink()
    cards = read_index().select(".card")
    assert [len(card.find_all("figure")) for card in cards] == [1, 1, 0, 1, 1]
    # Its verdict in words, which the figure has as its title, stands there all the same.
    assert "KLD is not the best loss." in cards[2].get_text()


def test_the_index_leads_to_each_page_by_its_title():
    links = read_index().select(".pages a")
    assert [(link["href"], link.string) for link in links] == [
        ("0_dataset.html", "Title of 0_dataset"),
        ("3_loss.html", "Title of 3_loss"),
        ("6_summary.html", "Title of 6_summary"),
    ]


def test_every_link_of_the_index_leads_somewhere():
    soup = read_index()
    links = {a["href"] for a in soup.find_all("a")}
    assert {"tables/claims.csv", "tables/floors.csv", "3_loss.html", "index.html"} < links
    folder = read_parameters().report_path
    assert [link for link in links if not link.startswith("#") and not (folder / link).is_file()] == []
    assert soup.header.find("a", attrs={"aria-current": "page"})["href"] == "index.html"


def test_a_page_that_has_not_been_drawn_is_not_linked():
    (read_parameters().report_path / "3_loss.html").unlink()
    soup = read_index()
    assert [a["href"] for a in soup.header.find_all("a")] == ["index.html", "0_dataset.html", "6_summary.html"]


def test_the_index_says_how_to_draw_the_gallery():
    soup = read_index()
    commands = [code.string for code in soup.main("code")]
    assert "make gallery PROFILE=laptop DATA=/path/to/Dataset_BUSI_with_GT" in commands
    assert not [a for a in soup.find_all("a") if "allery" in str(a)]


def test_the_index_tells_size_machine_and_commands():
    soup = read_index()
    # In the order in which the notebook has recorded them.
    assert [(dt.string, dt.find_next("dd").string) for dt in soup.main.find_all("dt")] == [
        ("Images", "7, of which 6 with a lesion & more"),
        ("Epochs", "75 (published: 75)"),
        ("Machine", "2 cores, no GPUs"),
    ]
    commands = [pre.get_text() for pre in soup.main.find_all("pre")]
    assert commands[:2] == [
        "make report PROFILE=laptop",
        "make study PROFILE=laptop DATA=/path/to/Dataset_BUSI_with_GT",
    ]


def test_a_report_without_a_run_says_nothing_about_machines():
    record_summary(read_parameters(), made={})
    assert "How it was made" not in read_index().get_text()


def test_a_study_on_phantoms_needs_no_data_to_be_made_again():
    commands = [pre.get_text() for pre in read_index(data_dir="phantom").main.find_all("pre")]
    assert commands[1] == "make study PROFILE=laptop"


def test_the_index_is_the_same_bytes_every_time():
    first = index.write_index(read_parameters()).read_bytes()
    assert index.write_index(read_parameters()).read_bytes() == first


@pytest.mark.parametrize(
    ("missing", "complaint"),
    [
        ("findings.json", r"findings\.json: no summary yet; notebooks/6_summary\.ipynb writes it"),
        ("figures/ladder.svg", r"ladder\.svg: no such figure; draw the report again"),
        ("figures/rows-against-blind.svg", r"rows-against-blind\.svg: no such figure"),
    ],
)
def test_an_index_without_its_findings_or_figures_is_refused(missing, complaint):
    folder = read_parameters().report_path
    (folder / missing).unlink()
    with pytest.raises(StudyError, match=complaint):
        index.write_index(read_parameters())
    assert not (folder / "index.html").exists()


def test_an_index_without_the_claims_is_refused():
    (read_parameters().tables_path / "claims.csv").unlink()
    with pytest.raises(results.NotMeasured, match=r"claims\.csv"):
        index.write_index(read_parameters())
    assert not (read_parameters().report_path / "index.html").exists()
