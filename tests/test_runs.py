"""Store of runs: keys, damage, what a finished run holds, continuation and the lock, on run folders written by hand."""

import json
import shutil
import warnings

import numpy as np
import pytest
from filelock import FileLock, Timeout
from small_study import finish_run

from busi import runs
from busi.config import RunConfig
from busi.dataset.preprocessing import Scaling
from busi.runs import DamageWarning, Predictions, Run, Store, find_damage

DATA = "0123456789abcdef"

SCALING = {"mean": 0.1 + 0.2, "deviation": 0.125}

OUTCOME = {"training": {"loss": 0.3}, "still": {"loss": 0.25}, "images": 10, "seconds": 1.5, "scaling": SCALING}

HELDOUT = RunConfig(protocol="heldout", image_size=32, fold=3, seed=8)

HELDOUT_OUTCOME = {"threshold": 0.4, "best_epoch": 2, "epochs": 2, "scaling": SCALING}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs", DATA)


def predict(*names):
    """Return predictions for named images: the probability of the k-th is k / 8."""
    eighths = np.arange(len(names), dtype=np.float32) / 8
    return Predictions(np.array(names), np.broadcast_to(eighths[:, None, None], (len(names), 2, 2)))


def finish(store, config=None):
    """Finish a published run as training does."""
    history = {"epoch": [1, 2], "loss": [0.5, 0.3]}
    predictions = {"training": predict("benign (1)", "malignant (2)")}
    return finish_run(store, config or RunConfig(), predictions, OUTCOME, history)


def finish_heldout(store, config=HELDOUT):
    """Finish a held-out run as training does: with the best epoch's weights besides."""
    history = {"epoch": [1, 2], "loss": [0.5, 0.3], "validation_dice": [0.1, 0.2]}
    predictions = {"validation": predict("benign (3)"), "test": predict("benign (1)", "normal (2)")}
    return finish_run(store, config, predictions, HELDOUT_OUTCOME, history)


# Keys and folders


def test_key_changes_with_everything_that_changes_the_numbers(store, monkeypatch):
    config = RunConfig()
    changed = [
        RunConfig(seed=1),
        RunConfig(epochs=74),
        RunConfig(loss="kld"),
        RunConfig(shuffle=True),
        RunConfig(image_size=284),
        RunConfig(precision="mixed_bfloat16"),
    ]
    keys = [store.key(config), Store(store.root, DATA[::-1]).key(config), *(store.key(other) for other in changed)]
    monkeypatch.setattr(runs, "TRAINING_VERSION", 100)
    keys.append(store.key(config))
    assert len(set(keys)) == len(keys)


def test_key_of_a_heldout_run_changes_with_the_file_of_the_split_of_its_data(store, here):
    file = here / "params" / "splits-grouped.csv"
    without = store.key(HELDOUT), store.key(RunConfig())
    keys = [without]
    for text in (f"# data {DATA}\nfold 3\n", f"# data {DATA}\nfold 4\n", f"# data {DATA[::-1]}\nfold 4\n"):
        file.write_text(text, encoding="utf-8")
        keys.append((store.key(HELDOUT), store.key(RunConfig())))
    assert len({heldout for heldout, _ in keys[:3]}) == 3
    # The split of other data is not used, and the published protocol has none.
    assert keys[3] == without
    assert len({published for _, published in keys}) == 1


def test_key_does_not_depend_on_the_place_of_the_store(store, tmp_path):
    assert Store(tmp_path / "elsewhere", DATA).key(RunConfig()) == store.key(RunConfig())


def test_folders_are_named_by_label_and_key(store):
    config = RunConfig(loss="kld", seed=3)
    folder = store.root / "published" / "300px-64f-75e" / "loss-kld" / f"fold0-seed3-{store.key(config)}"
    assert store.folder(config) == folder
    assert store.work(config) == folder.with_name(f"{folder.name}.unfinished")
    heldout = store.root / "heldout" / "32px-64f-75e" / "baseline" / f"fold3-seed8-{store.key(HELDOUT)}"
    assert store.folder(HELDOUT) == heldout


# Finished runs


def test_a_finished_run_is_found_as_it_was_written(store):
    written = finish(store)
    run = store.find(RunConfig())
    assert run == written == Run(store.folder(RunConfig()), RunConfig())
    assert run.outcome == OUTCOME
    assert run.environment == {"python": "3"}
    assert run.history.to_dict("list") == {"epoch": [1, 2], "loss": [0.5, 0.3]}
    assert not store.work(RunConfig()).exists()


def test_a_published_run_keeps_the_predictions_of_the_images_that_it_was_trained_on(store):
    run = finish(store)
    assert list(run.predictions) == ["training"]
    names, probability = run.predictions["training"]
    assert names.tolist() == ["benign (1)", "malignant (2)"]
    np.testing.assert_array_equal(probability, np.array([np.zeros((2, 2)), np.full((2, 2), 0.125)]))
    assert probability.dtype == np.float32
    assert run.threshold == 0.5
    assert run.weights == run.folder / runs.STATE


def test_a_heldout_run_keeps_predictions_threshold_and_the_best_weights(store):
    run = finish_heldout(store)
    assert list(run.predictions) == ["test", "validation"]
    assert isinstance(run.predictions["test"], Predictions)
    assert run.predictions["test"].names.tolist() == ["benign (1)", "normal (2)"]
    assert run.predictions["test"].probability[:, 0, 0].tolist() == [0, 0.125]
    assert run.predictions["validation"].names.tolist() == ["benign (3)"]
    assert run.threshold == 0.4
    assert run.weights == run.folder / runs.BEST


def test_the_scaling_is_read_to_the_last_digit(store):
    assert finish(store).scaling == Scaling(0.1 + 0.2, 0.125)


def test_a_run_folder_says_of_which_data_and_version_it_is(store):
    run = finish(store, RunConfig(loss="kld"))
    stored = run.stored
    assert (stored["key"], stored["fingerprint"], stored["training_version"]) == (
        store.key(run.config),
        DATA,
        runs.TRAINING_VERSION,
    )
    assert RunConfig(**stored["config"]) == RunConfig(loss="kld")
    files = {file.name for file in run.folder.iterdir()}
    assert stored["sha256"].keys() == files - {"config.json"}
    assert files == {
        *("config.json", "environment.json", "history.csv", "outcome.json", "predictions.npz", "state.weights.h5")
    }


def test_no_other_run_is_found_in_its_place(store, monkeypatch):
    finish(store)
    assert store.find(RunConfig(seed=1)) is None
    assert store.find(RunConfig(epochs=74)) is None
    assert Store(store.root, DATA[::-1]).find(RunConfig()) is None
    monkeypatch.setattr(runs, "TRAINING_VERSION", 100)
    assert store.find(RunConfig()) is None


def test_an_unfinished_run_is_not_found(store):
    shutil.move(finish(store).folder, store.work(RunConfig()))
    assert store.find(RunConfig()) is None


# Damage


def cut_history(folder):
    (folder / "history.csv").write_text("epoch,loss\n1,0.5\n2,", encoding="utf-8")


def better_loss(folder):
    file = folder / "outcome.json"
    file.write_text(file.read_text(encoding="utf-8").replace("0.25", "0.15"), encoding="utf-8")


def no_outcome(folder):
    (folder / "outcome.json").unlink()


def other_predictions(folder):
    names, probability = predict("benign (1)", "malignant (3)")
    np.savez_compressed(folder / "predictions.npz", training_names=names, training_probability=probability)


def no_predictions(folder):
    (folder / "predictions.npz").unlink()


def cut_config(folder):
    (folder / "config.json").write_text('{"key": "', encoding="utf-8")


def no_config(folder):
    (folder / "config.json").unlink()


def no_weights(folder):
    (folder / runs.STATE).unlink()


def other_weights(folder):
    (folder / runs.STATE).write_bytes(bytes(256))


DAMAGES = {
    cut_history: "history.csv is not what was written",
    better_loss: "outcome.json is not what was written",
    no_outcome: "outcome.json is missing",
    other_predictions: "predictions.npz is not what was written",
    no_predictions: "predictions.npz is missing",
    no_weights: "state.weights.h5 is missing",
    other_weights: "state.weights.h5 is not what was written",
    cut_config: "config.json is missing or broken",
    no_config: "config.json is missing or broken",
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.items())
def test_a_damaged_run_counts_as_missing_until_it_is_trained_again(store, damage, message):
    """Weights need not be read to find every damage but other weights."""
    folder = finish(store).folder
    assert find_damage(folder, weights="there") == find_damage(folder, weights="read") == ""
    damage(folder)
    is_seen = damage is not other_weights
    assert find_damage(folder, weights="read") == message
    assert find_damage(folder, weights="there") == (message if is_seen else "")
    with pytest.warns(DamageWarning) as caught:
        assert store.find(RunConfig()) is None
        unread = store.find(RunConfig(), weights="there")
    assert unread == (None if is_seen else Run(folder, RunConfig()))
    told = f"{folder}: {message}; this run has to be trained again"
    assert [str(warning.message) for warning in caught] == [told] * (1 + is_seen)
    assert folder.is_dir()
    finish(store)
    assert store.find(RunConfig()).outcome == OUTCOME


@pytest.mark.parametrize("name", ["predictions.npz", runs.BEST])
def test_a_heldout_run_is_damaged_if_any_of_its_files_is(store, name):
    folder = finish_heldout(store).folder
    (folder / name).write_text("other", encoding="utf-8")
    with pytest.warns(DamageWarning, match=f"{name} is not what was written; this run has to be trained again"):
        assert store.find(HELDOUT) is None
    assert store.beginning(HELDOUT.model_copy(update={"epochs": 99})) is None


def test_scores_added_to_a_run_later_are_no_damage(store):
    folder = finish_heldout(store).folder
    (folder / "scores-01234567").mkdir()
    (folder / "scores-01234567" / "images.csv").touch()
    assert find_damage(folder, weights="read") == ""


def test_a_folder_that_is_gone_is_damaged(store):
    assert find_damage(store.folder(RunConfig()), weights="there") == "config.json is missing or broken"


# Continuing a shorter run


def test_the_longest_shorter_run_is_continued(store):
    for epochs in (2, 10, 9, 20, 30):
        finish(store, RunConfig(epochs=epochs))
    assert store.beginning(RunConfig(epochs=20)).config.epochs == 10
    assert store.beginning(RunConfig(epochs=75)).config.epochs == 30
    assert store.beginning(RunConfig(epochs=2)) is None


def test_a_run_that_only_predicts_otherwise_has_been_trained_already(store):
    averaged = RunConfig(**HELDOUT.model_dump() | {"schedule": "cosine", "patience": 0})
    mirrored = averaged.model_copy(update={"flip_test": True})
    finish(store, averaged)
    assert store.beginning(mirrored).config == averaged
    assert store.beginning(averaged) is store.beginning(mirrored, may_differ=runs.EPOCHS) is None
    # The rate falls over all planned epochs: a run of fewer is none of its beginnings.
    assert store.beginning(mirrored.model_copy(update={"epochs": averaged.epochs + 1})) is None


def test_a_run_whose_last_epoch_was_cut_short_is_not_continued(store):
    """Nor is it one of which fewer epochs were planned: their last one was cut short, too."""
    cut = RunConfig(epochs=5, last_steps=3)
    finish(store, cut)
    for epochs in (6, 10):
        assert store.beginning(RunConfig(epochs=epochs)) is None
        assert store.beginning(cut.model_copy(update={"epochs": epochs})) is None
    # A run of as many epochs may still predict in another way.
    assert store.beginning(cut.model_copy(update={"flip_test": True})).config == cut


def test_a_run_with_a_setting_that_this_code_does_not_know_is_passed_over(store):
    """Another version of the code, which trains alike, may share the folder of runs."""
    for epochs in (10, 20):
        finish(store, RunConfig(epochs=epochs))
    file = store.folder(RunConfig(epochs=20)) / "config.json"
    stored = json.loads(file.read_text(encoding="utf-8"))
    stored["config"]["dropout"] = 0.5
    file.write_text(json.dumps(stored), encoding="utf-8")
    assert store.beginning(RunConfig(epochs=75)).config.epochs == 10


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
def test_a_run_of_other_settings_is_not_continued(store, other):
    finish(store, RunConfig(epochs=5, **other))
    assert store.beginning(RunConfig(epochs=10)) is None
    assert store.beginning(RunConfig(epochs=10, **other)).config.epochs == 5


@pytest.mark.parametrize("other", [{"fold": 2}, {"seed": 3}, {"patience": 7}, {"split": "random"}, {"loss": "dice"}])
def test_a_heldout_run_of_another_fold_seed_or_split_is_not_continued(store, other):
    finish_heldout(store)
    config = RunConfig(**HELDOUT.model_dump() | other | {"epochs": 99})
    assert store.find(config) is store.beginning(config) is None
    assert store.beginning(HELDOUT.model_copy(update={"epochs": 99})).config == HELDOUT


def test_a_run_on_other_data_or_of_another_version_is_not_continued(store, monkeypatch):
    yesterday = Store(store.root, "of yesterday")
    finish(yesterday, RunConfig(epochs=5))
    assert store.beginning(RunConfig(epochs=10)) is None
    assert yesterday.beginning(RunConfig(epochs=10)).config.epochs == 5
    monkeypatch.setattr(runs, "TRAINING_VERSION", 100)
    assert yesterday.beginning(RunConfig(epochs=10)) is None


def test_a_run_of_a_version_with_other_settings_stops_no_training(store):
    folder = finish(store, RunConfig(epochs=5)).folder
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stored["training_version"] -= 1
    stored["config"]["dropout"] = 0.1
    (folder / "config.json").write_text(json.dumps(stored), encoding="utf-8")
    assert store.beginning(RunConfig(epochs=10)) is None


def test_a_run_on_another_split_is_not_continued(store, monkeypatch):
    """What it was trained on may be what is tested now."""
    finish(store, HELDOUT)
    mirrored = HELDOUT.model_copy(update={"flip_test": True})
    assert store.beginning(mirrored).config == HELDOUT
    monkeypatch.setattr(runs, "split_version", lambda *arguments: "another")
    assert store.beginning(mirrored) is None


@pytest.mark.parametrize("damage", [cut_history, no_weights, other_weights, no_predictions, cut_config])
def test_a_damaged_run_is_not_continued(store, damage):
    finish(store, RunConfig(epochs=4))
    damage(finish(store, RunConfig(epochs=5)).folder)
    assert store.beginning(RunConfig(epochs=10)).config.epochs == 4


# The lock


def test_the_lock_keeps_a_second_process_out(store):
    with store.lock(RunConfig()) as held:
        # Another lock on the same file, as another process has it.
        with pytest.raises(Timeout):
            FileLock(held.lock_file).acquire(timeout=0)
        with store.lock(RunConfig(seed=1)).acquire(timeout=0):
            pass
    with store.lock(RunConfig()).acquire(timeout=0):
        pass


def test_the_lock_is_not_taken_for_a_run(store):
    with store.lock(RunConfig()), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.find(RunConfig()) is None
        assert store.beginning(RunConfig(epochs=76)) is None


def test_a_finished_run_replaces_a_damaged_one_and_nothing_else(store):
    others = [finish(store, RunConfig(seed=1)).folder, finish_heldout(store).folder]
    cut_history(finish(store).folder)
    finish(store)
    assert json.loads((store.folder(RunConfig()) / "config.json").read_text(encoding="utf-8"))["fingerprint"] == DATA
    assert [find_damage(folder, weights="read") for folder in [store.folder(RunConfig()), *others]] == ["", "", ""]
