"""Two studies at once: nothing is trained twice, and both end with the tables of one that was alone."""

from working_copy import WorkingCopy, epochs


def test_a_study_says_how_far_it_is(undisturbed):
    """At its start at least; then every minute."""
    assert "tiny: 0 of 3 runs trained; " in undisturbed.copy.said()


def test_two_working_copies_share_a_store(undisturbed, copy, tmp_path):
    other = WorkingCopy(tmp_path / "other", runs=copy.runs, few=True)
    studies = [each.start(JOBS=1) for each in (copy, other)]
    assert [study.wait() for study in studies] == [0, 0], copy.said() + other.said()
    assert epochs(copy.said() + other.said()) == undisturbed.epochs
    assert set(undisturbed.epochs.values()) == {1}
    assert copy.tables() == other.tables() == undisturbed.tables


def test_a_second_study_in_one_folder_waits_for_the_first(undisturbed, copy):
    logs = [copy.folder / "first", copy.folder / "second"]
    studies = [copy.start(JOBS=1, log=log) for log in logs]
    said = [log.read_text() for log, study in zip(logs, studies, strict=True) if study.wait() == 0]
    assert len(said) == 2, [log.read_text() for log in logs]
    assert sorted("waiting for its end" in each for each in said) == [False, True]
    assert epochs("".join(said)) == undisturbed.epochs
    assert copy.tables() == undisturbed.tables
