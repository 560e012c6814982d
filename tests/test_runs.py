"""The store: keys, damage, gathering, continuation and the lock, on run folders written by hand."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from filelock import FileLock, Timeout

from busi import runs
from busi.config import RunConfig, StudyError
from busi.runs import DamageWarning, Store

DATA = "0123456789abcdef"
METRICS = {"training": {"loss": 0.3}, "still": {"loss": 0.25}, "images": 10, "seconds": 1.5}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs", tmp_path / "results")


def finished(store, config=None, data=DATA):
    """A run folder as training leaves it, with weights that are a few bytes."""
    config = config or RunConfig()
    work = store.work(config, data)
    work.mkdir(parents=True)
    (work / "history.csv").write_text("epoch,loss\n1,0.5\n2,0.3\n", encoding="utf-8")
    (work / runs.STATE).write_bytes(bytes(range(256)))
    return store.finish(config, data, work, METRICS, {"python": "3"})


# Keys


def test_key_changes_with_all_that_changes_the_numbers(store, monkeypatch):
    config = RunConfig()
    changed = [
        RunConfig(seed=1),
        RunConfig(epochs=74),
        RunConfig(loss="kld"),
        RunConfig(shuffle=True),
        RunConfig(image_size=284),
        RunConfig(precision="mixed_bfloat16"),
    ]
    keys = [store.key(config, DATA), store.key(config, DATA[::-1]), *(store.key(other, DATA) for other in changed)]
    monkeypatch.setitem(runs.TRAINING_VERSION, ("published", "float32"), 100)
    keys.append(store.key(config, DATA))
    assert len(set(keys)) == len(keys)


def test_a_new_version_of_one_protocol_and_precision_leaves_other_runs_alone(store, monkeypatch):
    published, single, half = (
        RunConfig(),
        *(RunConfig(protocol="heldout", image_size=32, precision=each) for each in ("float32", "mixed_bfloat16")),
    )
    before = [store.key(config, DATA) for config in (published, single, half)]
    monkeypatch.setitem(runs.TRAINING_VERSION, ("heldout", "mixed_bfloat16"), 100)
    after = [store.key(config, DATA) for config in (published, single, half)]
    assert after[:2] == before[:2]
    assert after[2] != before[2]


def test_key_does_not_depend_on_where_the_store_is(store, tmp_path):
    assert Store(tmp_path / "a", tmp_path / "b").key(RunConfig(), DATA) == store.key(RunConfig(), DATA)


def test_folders_are_named_for_people(store):
    config = RunConfig(loss="kld", seed=3)
    key = store.key(config, DATA)
    assert store.folder(config, DATA) == store.root / "published" / "loss-kld" / f"fold0-seed3-{key}"
    assert store.gathered(config) == store.results / "published" / "loss-kld" / "fold0-seed3"


# Finding


def test_a_finished_run_is_found_as_written(store):
    written = finished(store)
    found = store.find(RunConfig(), DATA)
    assert found.folder == written.folder == store.folder(RunConfig(), DATA)
    assert found.metrics == METRICS
    assert found.environment == {"python": "3"}
    assert found.history.to_dict("list") == {"epoch": [1, 2], "loss": [0.5, 0.3]}
    assert not store.work(RunConfig(), DATA).exists()


def test_nothing_else_is_found_in_its_place(store, monkeypatch):
    store.gather(finished(store))
    assert store.find(RunConfig(seed=1), DATA) is None
    assert store.find(RunConfig(epochs=74), DATA) is None
    assert store.find(RunConfig(), DATA[::-1]) is None
    monkeypatch.setitem(runs.TRAINING_VERSION, ("published", "float32"), 100)
    assert store.find(RunConfig(), DATA) is None


def test_an_unfinished_run_is_not_found(store):
    shutil.move(finished(store).folder, store.work(RunConfig(), DATA))
    assert store.find(RunConfig(), DATA) is None


def cut_history(folder):
    (folder / "history.csv").write_text("epoch,loss\n1,0.5\n2,", encoding="utf-8")


def better_loss(folder):
    file = folder / "metrics.json"
    file.write_text(file.read_text(encoding="utf-8").replace("0.25", "0.15"), encoding="utf-8")


def no_metrics(folder):
    (folder / "metrics.json").unlink()


def cut_config(folder):
    (folder / "config.json").write_text('{"key": "', encoding="utf-8")


def no_weights(folder):
    (folder / runs.STATE).unlink()


def other_weights(folder):
    (folder / runs.STATE).write_bytes(bytes(256))


READABLE = {
    cut_history: "history.csv is not what was written",
    better_loss: "metrics.json is not what was written",
    no_metrics: "metrics.json is missing",
}
STATE = {
    no_weights: "state.weights.h5 is missing",
    other_weights: "state.weights.h5 is not what was written",
    cut_config: "config.json is missing or broken",
}


@pytest.mark.parametrize(("damage", "told"), (READABLE | STATE).items())
def test_a_damaged_run_counts_as_missing_and_can_be_trained_again(store, damage, told):
    folder = finished(store).folder
    damage(folder)
    with pytest.warns(DamageWarning) as caught:
        assert store.find(RunConfig(), DATA) is None
    assert [str(warning.message) for warning in caught] == [f"{folder}: {told}; training this run again"]
    finished(store)
    assert store.find(RunConfig(), DATA).metrics == METRICS


def test_weights_are_looked_for_where_they_need_not_be_read(store):
    folder = finished(store).folder
    other_weights(folder)
    assert store.find(RunConfig(), DATA, weights="there").folder == folder
    no_weights(folder)
    with pytest.warns(DamageWarning, match="state.weights.h5 is missing"):
        assert store.find(RunConfig(), DATA, weights="there") is None


@pytest.mark.parametrize(("damage", "told"), READABLE.items())
def test_damaged_results_count_as_missing(store, damage, told):
    gathered = store.gather(finished(store))
    shutil.rmtree(store.root)
    damage(gathered.folder)
    with pytest.warns(DamageWarning, match=told):
        assert store.find(RunConfig(), DATA) is None


@pytest.mark.parametrize("damage", [cut_history, no_weights])
def test_a_damaged_run_is_not_excused_by_its_gathered_results(store, damage):
    written = finished(store)
    store.gather(written)
    damage(written.folder)
    with pytest.warns(DamageWarning, match="training this run again"):
        assert store.find(RunConfig(), DATA) is None


@pytest.mark.parametrize(("damage", "told"), ({cut_history: READABLE[cut_history]} | STATE).items())
def test_damage_after_the_end_is_told_where_it_is(store, damage, told):
    written = finished(store)
    gathered = store.gather(written)
    assert store.damage(RunConfig()) == ""
    damage(written.folder)
    assert store.damage(RunConfig()) == ("" if damage is other_weights else told)  # which are looked for, not read
    shutil.rmtree(store.root)
    assert store.damage(RunConfig()) == ""
    cut_history(gathered.folder)
    assert store.damage(RunConfig()) == READABLE[cut_history]
    shutil.rmtree(gathered.folder)
    assert store.damage(RunConfig()) == "config.json is missing or broken"


# Gathering


def test_damaged_results_are_gathered_again(store):
    written = finished(store)
    gathered = store.gather(written)
    cut_history(gathered.folder)
    with pytest.warns(DamageWarning, match=rf"{gathered.folder}: {READABLE[cut_history]}; gathering it again"):
        assert store.gather(written).history.equals(written.history)
    assert store.damage(RunConfig()) == ""


def test_gathered_results_without_weights_count_as_finished(store):
    gathered = store.gather(finished(store))
    shutil.rmtree(store.root)
    assert {file.name for file in gathered.folder.iterdir()} == {
        "config.json",
        "environment.json",
        "history.csv",
        "metrics.json",
    }
    found = store.find(RunConfig(), DATA)
    assert found.folder == store.gathered(RunConfig())
    assert found.metrics == METRICS


def test_gathering_replaces_the_results_of_other_data(store):
    store.gather(finished(store, data="of yesterday"))
    store.gather(finished(store))
    stored = json.loads((store.gathered(RunConfig()) / "config.json").read_text(encoding="utf-8"))
    assert stored["fingerprint"] == DATA
    assert [folder.name for folder in store.gathered(RunConfig()).parent.iterdir()] == ["fold0-seed0"]


def test_gathering_what_is_gathered_leaves_it_alone(store):
    gathered = store.gather(finished(store))
    assert store.gather(gathered).folder == gathered.folder
    assert store.find(RunConfig(), DATA) is not None


def test_a_shorter_run_leaves_the_gathered_longer_one(store):
    store.gather(finished(store, RunConfig(epochs=9)))
    shorter = finished(store, RunConfig(epochs=5))
    assert store.gather(shorter) == shorter
    assert store.read(RunConfig(epochs=75)).config.epochs == 9


def test_a_longer_run_of_other_data_is_replaced(store):
    store.gather(finished(store, RunConfig(epochs=9), data="of yesterday"))
    store.gather(finished(store, RunConfig(epochs=5)))
    assert store.find(RunConfig(epochs=5), DATA).config.epochs == 5
    assert store.read(RunConfig(epochs=75)).config.epochs == 5


def test_gathering_side_by_side_gathers_once(store):
    run = finished(store)
    with ThreadPoolExecutor(8) as pool:
        gathered = list(pool.map(lambda _: store.gather(run), range(64)))
    assert {each.folder for each in gathered} == {store.gathered(RunConfig())}
    assert store.read(RunConfig()).metrics == METRICS


def test_results_are_read_without_the_data(store):
    assert store.read(RunConfig()) is None
    store.gather(finished(store))
    assert store.read(RunConfig()).metrics == METRICS


def test_reading_accepts_fewer_epochs_and_says_how_many(store):
    store.gather(finished(store, RunConfig(epochs=5)))
    assert store.read(RunConfig(epochs=75)).config.epochs == 5
    assert store.read(RunConfig(epochs=4)) is None


@pytest.mark.parametrize("other", [{"base_filters": 32}, {"image_size": 284}, {"precision": "mixed_bfloat16"}])
def test_reading_refuses_a_run_of_other_settings(store, other):
    """Size is not in the folder's name, so another profile's run can lie there."""
    store.gather(finished(store, RunConfig(**other)))
    assert store.gathered(RunConfig()).is_dir()
    assert store.read(RunConfig()) is None


@pytest.mark.parametrize(("damage", "told"), READABLE.items())
def test_reading_damaged_results_says_how_to_mend_them(store, damage, told):
    folder = store.gather(finished(store)).folder
    damage(folder)
    with pytest.raises(StudyError) as caught:
        store.read(RunConfig())
    assert str(caught.value).startswith(f"{folder}: {told}; restore it")


# Held out

HELDOUT = RunConfig(protocol="heldout", image_size=32, fold=3, seed=8)


def heldout(store, config=HELDOUT):
    """A held-out run's folder: scores of its images and the best epoch's weights besides."""
    work = store.work(config, DATA)
    work.mkdir(parents=True)
    (work / "history.csv").write_text("epoch,loss,validation_dice\n1,0.5,0.1\n2,0.3,0.2\n", encoding="utf-8")
    (work / "per_image.csv").write_text("name,dice\nbenign (1),0.25\nnormal (2),\n", encoding="utf-8")
    (work / "bins.csv").write_text("probability,lesion,background\n0.25,1,7\n", encoding="utf-8")
    for name in (runs.STATE, runs.BEST):
        (work / name).write_bytes(name.encode())
    return store.finish(config, DATA, work, {"threshold": 0.4, "best_epoch": 2}, {"python": "3"})


def test_held_out_runs_lie_by_fold_and_seed(store):
    key = store.key(HELDOUT, DATA)
    assert store.folder(HELDOUT, DATA) == store.root / "heldout" / "baseline" / f"fold3-seed8-{key}"
    assert store.gathered(HELDOUT) == store.results / "heldout" / "baseline" / "fold3-seed8"


def test_held_out_scores_are_gathered_and_read_and_weights_are_not(store):
    gathered = store.gather(heldout(store))
    shutil.rmtree(store.root)
    names = {"config.json", "environment.json", "history.csv", "metrics.json", "per_image.csv", "bins.csv"}
    assert {file.name for file in gathered.folder.iterdir()} == names
    for found in (store.find(HELDOUT, DATA), store.read(HELDOUT)):
        assert found.metrics["threshold"] == 0.4
        assert found.per_image.name.tolist() == ["benign (1)", "normal (2)"]
        assert found.per_image.dice[0] == 0.25 and np.isnan(found.per_image.dice[1])
        assert found.bins.to_dict("list") == {"probability": [0.25], "lesion": [1], "background": [7]}


@pytest.mark.parametrize("name", ["per_image.csv", "bins.csv", runs.BEST])
def test_a_held_out_run_is_damaged_where_any_of_its_files_is(store, name):
    folder = heldout(store).folder
    (folder / name).write_text("other", encoding="utf-8")
    with pytest.warns(DamageWarning, match=f"{name} is not what was written; training this run again"):
        assert store.find(HELDOUT, DATA) is None
    assert store.shorter(HELDOUT.model_copy(update={"epochs": 99}), DATA) is None


@pytest.mark.parametrize("name", ["per_image.csv", "bins.csv"])
def test_reading_damaged_scores_is_refused(store, name):
    folder = store.gather(heldout(store)).folder
    (folder / name).unlink()
    with pytest.raises(StudyError, match=f"{name} is missing; restore it"):
        store.read(HELDOUT)


@pytest.mark.parametrize("other", [{"fold": 2}, {"seed": 3}, {"patience": 7}, {"split": "random"}, {"loss": "dice"}])
def test_another_fold_seed_or_split_is_another_run(store, other):
    store.gather(heldout(store))
    config = RunConfig(**HELDOUT.model_dump() | other | {"epochs": 99})
    assert store.find(config, DATA) is store.shorter(config, DATA) is store.read(config) is None
    assert store.shorter(HELDOUT.model_copy(update={"epochs": 99}), DATA).config == HELDOUT


# Going on from a shorter run


def test_the_longest_shorter_run_is_continued(store):
    for epochs in (2, 10, 9, 20, 30):
        finished(store, RunConfig(epochs=epochs))
    assert store.shorter(RunConfig(epochs=20), DATA).config.epochs == 10
    assert store.shorter(RunConfig(epochs=75), DATA).config.epochs == 30
    assert store.shorter(RunConfig(epochs=2), DATA) is None


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"shuffle": True},
        {"loss": "kld"},
        {"base_filters": 32},
        {"image_size": 284},
        {"precision": "mixed_bfloat16"},
    ],
)
def test_a_run_of_another_lineage_is_not_continued(store, other):
    finished(store, RunConfig(epochs=5, **other))
    assert store.shorter(RunConfig(epochs=10), DATA) is None
    assert store.shorter(RunConfig(epochs=10, **other), DATA).config.epochs == 5


def test_a_run_on_other_data_or_of_another_version_is_not_continued(store, monkeypatch):
    finished(store, RunConfig(epochs=5), data="of yesterday")
    assert store.shorter(RunConfig(epochs=10), DATA) is None
    monkeypatch.setitem(runs.TRAINING_VERSION, ("published", "float32"), 100)
    assert store.shorter(RunConfig(epochs=10), "of yesterday") is None


@pytest.mark.parametrize("damage", [cut_history, no_weights, other_weights, cut_config])
def test_a_damaged_run_is_not_continued(store, damage):
    finished(store, RunConfig(epochs=4))
    damage(finished(store, RunConfig(epochs=5)).folder)
    assert store.shorter(RunConfig(epochs=10), DATA).config.epochs == 4


def test_results_without_weights_are_not_continued(store):
    store.gather(finished(store, RunConfig(epochs=5)))
    shutil.rmtree(store.root)
    assert store.shorter(RunConfig(epochs=10), DATA) is None


# The lock


def test_the_lock_keeps_a_second_process_out(store):
    with store.lock(RunConfig(), DATA) as held:
        # Another lock on the same file, as another process has it.
        with pytest.raises(Timeout):
            FileLock(held.lock_file).acquire(timeout=0)
        with store.lock(RunConfig(seed=1), DATA).acquire(timeout=0):
            pass
    with store.lock(RunConfig(), DATA).acquire(timeout=0):
        pass


def test_the_lock_is_no_run(store):
    with store.lock(RunConfig(), DATA):
        assert store.find(RunConfig(), DATA) is None
        assert store.shorter(RunConfig(epochs=76), DATA) is None
