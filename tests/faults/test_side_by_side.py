"""Two studies at the same time train nothing twice, and both end with the tables of one that ran alone."""

from working_copy import WorkingCopy, epochs


def test_a_study_says_how_far_it_is(undisturbed):
    """At least when it starts; then every minute."""
    assert "tiny: 0 of 4 runs trained; " in undisturbed.copy.said()


def test_two_working_copies_share_a_store(undisturbed, every_epoch, copy, tmp_path):
    other = WorkingCopy(tmp_path / "other", runs=copy.runs, few=True)
    studies = [copy.start(JOBS=1), other.start(JOBS=1)]
    codes = [study.wait() for study in studies]
    assert codes == [0, 0], copy.said() + other.said()
    assert epochs(copy.said() + other.said()) == every_epoch
    assert copy.tables() == other.tables() == undisturbed.tables


def test_a_second_study_in_one_folder_waits_for_the_first(undisturbed, every_epoch, copy):
    logs = [copy.folder / "first", copy.folder / "second"]
    studies = [copy.start(JOBS=1, log=log) for log in logs]
    codes = [study.wait() for study in studies]
    said = [log.read_text() for log in logs]
    assert codes == [0, 0], said
    assert sorted("waiting for it to end" in text for text in said) == [False, True]
    assert epochs("".join(said)) == every_epoch
    assert copy.tables() == undisturbed.tables
