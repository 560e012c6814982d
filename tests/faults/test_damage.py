"""The next ``make study`` notices what was damaged after the study's end, names it, and makes it good where it can."""

import shutil

import pytest
from working_copy import RUNS, epochs


def cut(file):
    """Take the last bytes of a file away."""
    file.write_bytes(file.read_bytes()[:-20])


def said_by(copy, code=0):
    """Run the study again, expect its exit code and return what it says."""
    before = len(copy.said())
    assert (copy.study() == 0) == (code == 0), copy.said()
    return copy.said()[before:]


@pytest.fixture(scope="module")
def repaired(undisturbed):
    """Damage three runs of the undisturbed study in three ways, run it again and return its copy and what it said."""
    copy = undisturbed.copy
    cut(copy.find_folder("published/baseline") / "history.csv")
    (copy.find_folder("published/loss-dice") / "state.weights.h5").unlink()
    cut(copy.find_folder("heldout/baseline") / "predictions.npz")
    return copy, said_by(copy)


def test_damaged_runs_are_named_and_trained_again(undisturbed, repaired):
    copy, said = repaired
    for run, damage in {
        "published/baseline": "history.csv is not what was written",
        "published/loss-dice": "state.weights.h5 is missing",
        "heldout/baseline": "predictions.npz is not what was written",
    }.items():
        assert f"{copy.find_folder(run)}: {damage}; this run has to be trained again" in said
    trained = {run for run, _ in epochs(said)}
    assert trained == RUNS.keys() - {"published/loss-kld"}
    assert set(epochs(said).values()) == {1}
    assert copy.tables() == undisturbed.tables


def test_then_nothing_is_left_to_do(repaired):
    copy, _ = repaired
    assert "Nothing to be done" in said_by(copy)


def test_a_damaged_table_of_results_is_named_and_restored_by_hand(undisturbed, repaired):
    copy, _ = repaired
    file = copy.report / "results/heldout/loss/images.csv.xz"
    whole = file.read_bytes()
    cut(file)
    # Nothing else has changed, so the page is made again only if someone takes it away.
    for made in (copy.folder / "build/tiny/1_loss.ipynb", copy.report / "1_loss.html"):
        made.unlink()
    try:
        said = said_by(copy, code=1)
    finally:
        file.write_bytes(whole)
    assert f"{file.relative_to(copy.folder)}: not readable" in said
    assert not epochs(said + said_by(copy))
    assert copy.tables() == undisturbed.tables
    assert (copy.report / "1_loss.html").is_file()


def test_other_comments_in_the_code_change_nothing(repaired):
    copy, _ = repaired
    with (copy.folder / "busi/scoring/predictors.py").open("a") as code:
        code.write("# changed\n")
    assert "Nothing to be done" in said_by(copy)


def test_other_code_scores_the_untrained_predictors_before_any_notebook_reads_them(repaired):
    copy, _ = repaired
    with (copy.folder / "busi/scoring/predictors.py").open("a") as code:
        code.write("CHANGED = True\n")
    said = said_by(copy)
    assert "Finished jobid" in said.partition("rule data:")[2].partition("rule notebook:")[0]
    assert not epochs(said)


def test_other_code_scores_the_runs_again_and_trains_nothing(undisturbed, repaired):
    copy, _ = repaired
    before = [folder.name for folder in copy.find_folder("heldout/baseline").glob("scores-*")]
    with (copy.folder / "busi/scoring/scores.py").open("a") as code:
        code.write("CHANGED = True\n")
    said = said_by(copy)
    assert "rule score:" in said
    assert not epochs(said)
    after = [folder.name for folder in copy.find_folder("heldout/baseline").glob("scores-*")]
    assert len(after) == 1
    assert after != before
    assert copy.tables() == undisturbed.tables


def test_a_store_that_was_removed_leaves_the_results(undisturbed, repaired):
    copy, _ = repaired
    shutil.rmtree(copy.runs)
    said = said_by(copy)
    assert not epochs(said)
    assert copy.tables() == undisturbed.tables
