"""A run damaged after the study's end is noticed by the next ``make study``, named, and mended."""

import shutil

import pytest
from working_copy import epochs


def cut_history(folder):
    file = folder / "history.csv"
    file.write_bytes(file.read_bytes()[:-20])


def no_weights(folder):
    (folder / "state.weights.h5").unlink()


def kept(copy, name):
    """The folder that a run was trained into."""
    (folder,) = (copy.runs / "tiny/published" / name).glob("fold0-seed0-????????")
    return folder


def gathered(copy, name):
    """The folder of a run's results."""
    return copy.report / "results/published" / name / "fold0-seed0"


@pytest.fixture(scope="module")
def mended(undisturbed):
    """The undisturbed copy after three kinds of damage and another study, and what that said."""
    copy, before = undisturbed.copy, len(undisturbed.copy.said())
    cut_history(kept(copy, "baseline"))
    no_weights(kept(copy, "loss-dice"))
    cut_history(gathered(copy, "loss-kld"))
    assert copy.study() == 0, copy.said()
    return copy, copy.said()[before:]


def test_damaged_runs_are_named_and_trained_again(undisturbed, mended):
    copy, said = mended
    assert f"{kept(copy, 'baseline')}: history.csv is not what was written; training this run again" in said
    assert f"{kept(copy, 'loss-dice')}: state.weights.h5 is missing; training this run again" in said
    again = {(run, epoch): 1 for run, epoch in undisturbed.epochs if run != "loss-kld"}
    assert epochs(said) == again
    assert copy.tables() == undisturbed.tables


def test_damaged_results_are_gathered_again_without_training(mended):
    copy, said = mended
    assert f"{gathered(copy, 'loss-kld').relative_to(copy.folder)}: history.csv is not what was written" in said
    files = [folder / "history.csv" for folder in (gathered(copy, "loss-kld"), kept(copy, "loss-kld"))]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_then_nothing_is_left_to_do(mended):
    copy, _ = mended
    before = len(copy.said())
    assert copy.study() == 0
    assert "Nothing to be done" in copy.said()[before:]


def test_other_code_scores_the_untrained_predictors_before_any_notebook_reads_them(mended):
    copy, _ = mended
    before = len(copy.said())
    with (copy.folder / "busi/evaluation/predictors.py").open("a") as code:
        code.write("# changed\n")
    assert copy.study() == 0
    said = copy.said()[before:]
    assert "Finished jobid" in said.partition("rule data:")[2].partition("rule notebook:")[0]
    assert not epochs(said)


def test_a_store_that_was_removed_leaves_the_results(undisturbed, mended):
    copy, _ = mended
    before = len(copy.said())
    shutil.rmtree(copy.runs)
    assert copy.study() == 0
    assert not epochs(copy.said()[before:])
    assert copy.tables() == undisturbed.tables
