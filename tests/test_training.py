"""Training on phantoms: the same bits twice, killed or not, and metrics against independent computations."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import roc_auc_score

from busi import study
from busi.config import ROOT, RunConfig, StudyError
from busi.dataset import arrays, catalog
from busi.runs import STATE, Store
from busi.training import batches, compiled, train

METRICS = ("loss", "accuracy", "auc", "lesion_share")
EPOCHS = 10
SETTINGS = {
    "momentum": {},
    "adam, decaying, code, shuffled": {
        "optimizer": "adam",
        "momentum": 0.0,
        "learning_rate": 0.001,
        "schedule": "exponential",
        "preprocessing": "code",
        "shuffle": True,
    },
}


def small(epochs=EPOCHS, **settings):
    """Input 204, output 20 pixels."""
    return RunConfig(image_size=204, base_filters=2, epochs=epochs, **settings)


def store_in(folder):
    return Store(folder / "runs", folder / "results")


def state(run):
    """Weights and optimizer, by their place in the file."""
    tensors = {}
    with h5py.File(run.folder / STATE) as file:
        file.visititems(lambda name, item: tensors.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return tensors


def assert_same(run, other):
    """Bit for bit: weights, optimizer, and every epoch's metrics."""
    tensors, others = state(run), state(other)
    assert tensors.keys() == others.keys()
    assert any("optimizer" in name for name in tensors)
    for name in tensors:
        np.testing.assert_array_equal(tensors[name], others[name], err_msg=name)
    pd.testing.assert_frame_equal(
        run.history.drop(columns="seconds"), other.history.drop(columns="seconds"), check_exact=True
    )
    assert run.metrics["training"] == other.metrics["training"]
    assert run.metrics["still"] == other.metrics["still"]


# A process of its own for `train`: data folder, store folder, configuration.
TRAIN = """
import json, sys
from pathlib import Path
from busi import training
from busi.config import RunConfig
from busi.dataset import catalog
from busi.runs import Store

data, store = map(Path, sys.argv[1:3])
config = RunConfig(**json.loads(sys.argv[3]))
training.train(config, catalog.read(data, expected=None), Store(store / "runs", store / "results"))
"""


def start(data_dir, folder, config, *, before="", **environment):
    """Start training in another process; what it says goes to ``folder/output``."""
    folder.mkdir(exist_ok=True)
    with (folder / "output").open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-c", before + TRAIN, data_dir, folder, config.model_dump_json()],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def trained(data_dir, folder):
    """The store of a process that trained to its end."""
    process = start(data_dir, folder, small())
    assert process.wait() == 0, (folder / "output").read_text()
    return store_in(folder)


def killed(data_dir, folder, config, fingerprint):
    """The store of a process killed as soon as it had put an epoch aside, and the seconds of the epochs it had."""
    store = store_in(folder)
    work = store.work(config, fingerprint)
    process = start(data_dir, folder, config)
    while process.poll() is None and not any(work.glob("epoch-*")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, (folder / "output").read_text()
    return store, pd.read_csv(max(work.glob("epoch-*")) / "history.csv").seconds.tolist()


@pytest.fixture(scope="module")
def phantoms(phantom_dir):
    return catalog.read(phantom_dir, expected=None)


@pytest.fixture(scope="module")
def elsewhere(phantoms, phantom_dir, tmp_path_factory):
    """What other processes train, all at once and while this one goes on: most of their time is TensorFlow's start."""
    folder = tmp_path_factory.mktemp("elsewhere")
    with ThreadPoolExecutor() as pool:
        yield {"trained": pool.submit(trained, phantom_dir, folder / "trained")} | {
            label: pool.submit(killed, phantom_dir, folder / f"killed {k}", small(**settings), phantoms.fingerprint)
            for k, (label, settings) in enumerate(SETTINGS.items())
        }


@pytest.fixture(scope="module")
def straight(elsewhere, phantoms, tmp_path_factory):
    """One uninterrupted run of each settings, trained in this process, with its weights."""
    store = store_in(tmp_path_factory.mktemp("straight"))
    runs = {}
    for label, settings in SETTINGS.items():
        train(small(**settings), phantoms, store)
        runs[label] = store.find(small(**settings), phantoms.fingerprint)
    return runs


# The same bits


def test_another_process_trains_the_same_bits(straight, elsewhere, phantoms):
    store = elsewhere["trained"].result()
    assert_same(store.find(small(), phantoms.fingerprint), straight["momentum"])


def test_an_epoch_in_one_execution_trains_the_same_bits(straight, phantoms):
    """As one step after another, with Python in between."""
    model, made = compiled(small()), arrays.published(phantoms, small())
    stream = batches(made, small(), 1, first_epoch=1)
    model.fit(stream, steps_per_epoch=len(made), epochs=EPOCHS, shuffle=False, verbose=0)
    whole = compiled(small())
    whole.load_weights(straight["momentum"].folder / STATE)
    for weight, expected in zip(model.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("label", SETTINGS)
def test_a_killed_run_goes_on_to_the_same_bits(straight, elsewhere, phantoms, label):
    store, seconds = elsewhere[label].result()
    config = small(**SETTINGS[label])
    assert 0 < len(seconds) < EPOCHS
    assert store.find(config, phantoms.fingerprint) is None

    train(config, phantoms, store)
    finished = store.find(config, phantoms.fingerprint)
    assert_same(finished, straight[label])
    # Measured seconds never repeat: equal ones were not trained again.
    assert finished.history.seconds[: len(seconds)].tolist() == seconds
    assert not store.work(config, phantoms.fingerprint).exists()


class Killed(BaseException):
    """Stands for the end of the process: nothing in the package may catch it."""


@pytest.mark.parametrize("moved", [False, True], ids=["before the last move", "after it"])
def test_a_run_killed_while_it_is_finished_loses_no_epoch(straight, phantoms, tmp_path, monkeypatch, moved):
    """The last checkpoint becomes the finished folder in one move."""
    store, whole = store_in(tmp_path), straight["momentum"]
    checkpoint = store.work(small(), phantoms.fingerprint) / f"epoch-{EPOCHS:04d}"
    checkpoint.mkdir(parents=True)
    for name in ("history.csv", STATE):
        shutil.copyfile(whole.folder / name, checkpoint / name)
    rename = Path.rename

    def killed_at_rename(path, target):
        if moved:
            rename(path, target)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "rename", killed_at_rename)
        train(small(), phantoms, store)
    train(small(), phantoms, store)
    finished = store.find(small(), phantoms.fingerprint)
    assert_same(finished, whole)
    assert finished.history.seconds.tolist() == whole.history.seconds.tolist()


def test_a_disk_without_room_for_a_checkpoint_ends_a_run_before_it_is_written(phantoms, tmp_path, monkeypatch):
    model = compiled(small())
    # Momentum: one more number a weight, and the rate and the count of steps.
    wanted = 4 * (2 * model.count_params() + 2) + 2**20
    left = iter([wanted, wanted - 1])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=next(left)))
    work = store_in(tmp_path).work(small(), phantoms.fingerprint)
    with pytest.raises(OSError, match=r"disk full: (\d\.\d) MB are left, \1 MB wanted") as caught:
        train(small(), phantoms, store_in(tmp_path))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(work))
    assert [folder.name for folder in work.iterdir()] == ["epoch-0001"]


def test_a_longer_run_goes_on_where_a_shorter_ended(straight, phantoms, tmp_path):
    store = store_in(tmp_path)
    settings = SETTINGS["adam, decaying, code, shuffled"]
    seconds = train(small(epochs=5, **settings), phantoms, store).history.seconds.tolist()
    train(small(**settings), phantoms, store)
    longer = store.find(small(**settings), phantoms.fingerprint)
    assert_same(longer, straight["adam, decaying, code, shuffled"])
    assert longer.history.seconds[:5].tolist() == seconds


def test_a_finished_run_is_not_trained_again(straight, phantoms):
    whole = straight["momentum"]
    store = Store(whole.folder.parents[2], whole.folder.parents[3] / "results")
    changed = {file: file.stat().st_mtime_ns for file in [whole.folder, *whole.folder.iterdir()]}
    run = train(small(), phantoms, store)
    assert run.folder == store.gathered(small())
    assert run.metrics == whole.metrics
    assert changed == {file: file.stat().st_mtime_ns for file in [whole.folder, *whole.folder.iterdir()]}
    assert not store.work(small(), phantoms.fingerprint).exists()


def test_the_seed_decides_the_first_weights():
    first, again, other = (compiled(small(seed=seed)).get_weights() for seed in (0, 0, 1))
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    assert not np.array_equal(first[0], other[0])


# Another backend

ON_JAX = {"before": "import sys; sys.modules['tensorflow'] = None  # not installed\n", "KERAS_BACKEND": "jax"}


@pytest.mark.parametrize(
    "config",
    [
        small(loss="kld", preprocessing="code", shuffle=True),
        RunConfig(protocol="heldout", image_size=32, base_filters=2),
    ],
    ids=["published", "held-out"],
)
@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
def test_a_run_goes_on_with_the_same_numbers_on_jax_without_tensorflow(config, draw_quarters, tmp_path):
    """One epoch on TensorFlow; two more on either, so that a batch too many in the first would be seen in the next."""
    folder = draw_quarters(tmp_path / "phantom")
    data = catalog.read(folder, expected=None)
    one, three = (config.model_copy(update={"epochs": epochs}) for epochs in (1, 3))
    train(one, data, store_in(tmp_path / "mixed"))
    process = start(folder, tmp_path / "mixed", three, **ON_JAX)
    train(three, data, store_in(tmp_path / "straight"))
    assert process.wait() == 0, (tmp_path / "mixed" / "output").read_text()
    mixed, straight = (store_in(tmp_path / name).find(three, data.fingerprint) for name in ("mixed", "straight"))
    assert (mixed.environment["backend"], mixed.environment["gpus"]) == ("jax", 0)
    assert mixed.history.epoch.tolist() == [1, 2, 3]
    same = mixed.history.drop(columns="seconds"), straight.history.drop(columns="seconds")
    pd.testing.assert_frame_equal(*same, rtol=1e-4, atol=0)
    if config.protocol == "heldout":
        pd.testing.assert_frame_equal(mixed.per_image, straight.per_image, rtol=0, atol=1e-3)
    else:
        assert mixed.metrics["still"] == pytest.approx(straight.metrics["still"], rel=1e-4)


def test_a_backend_that_training_is_not_made_for_is_refused_with_the_runs_name(phantoms, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    told = r"^published/baseline/fold0-seed0: KERAS_BACKEND: got 'torch'; training takes tensorflow or jax"
    with pytest.raises(StudyError, match=told):
        study.finished(small(), phantoms, store_in(tmp_path))


# Batches


def epochs(config, batch_size, first_epoch=1):
    """Three epochs' batches of ten images: the numbers of the images in each, those of image and target alike."""
    numbers = np.arange(10, dtype=np.float32)[:, None, None, None]
    ten = arrays.Arrays(numbers + np.zeros((10, 2, 2, 1)), numbers + np.zeros((10, 2, 2, 2)))
    steps = 10 // batch_size
    found = []
    for images, targets in batches(ten, config, batch_size, first_epoch).take(3 * steps).as_numpy_iterator():
        assert images.shape[1:] == (2, 2, 1) and targets.shape[1:] == (2, 2, 2)
        np.testing.assert_array_equal(images[:, 0, 0, 0], targets[:, 1, 1, 1])
        found.append(images[:, 0, 0, 0].astype(int).tolist())
    return [found[start : start + steps] for start in range(0, 3 * steps, steps)]


def test_unshuffled_batches_are_the_images_as_listed():
    assert epochs(small(), 1) == [[[k] for k in range(10)]] * 3


def test_whole_batches_only_and_of_each_image_at_most_once_an_epoch():
    """Of ten images in fours two are left over, others in every epoch."""
    found = epochs(small(shuffle=True), 4)
    drawn = [sorted(np.concatenate(batches).tolist()) for batches in found]
    assert [[len(batch) for batch in batches] for batches in found] == [[4, 4]] * 3
    assert all(len(set(epoch)) == 8 for epoch in drawn)
    assert len(set(map(tuple, drawn))) > 1


def test_an_epochs_order_follows_from_its_number_and_the_seed():
    """Whether or not those before it were drawn: what a resumed run sees."""
    config = small(shuffle=True)
    whole = epochs(config, 2)
    assert epochs(config, 2, first_epoch=3)[0] == whole[2]
    assert whole[0] != whole[1] != whole[2]
    assert epochs(small(shuffle=True, seed=1), 2) != whole


# Metrics


def predicted(run, phantoms):
    """Targets and probabilities, float64 (10, 20, 20, 2), of a run's saved weights."""
    made = arrays.published(phantoms, run.config)
    model = compiled(run.config)
    model.load_weights(run.folder / STATE)
    images = made.images / 255 if run.config.preprocessing == "code" else made.images
    return made.targets.astype(np.float64), model.predict(images, batch_size=1, verbose=0).astype(np.float64)


def roc(targets, probabilities):
    """False and true positive rate at Keras' 200 thresholds, channels pooled; a soft pixel is positive in both."""
    thresholds = np.concatenate([[-1e-7], np.arange(1, 199) / 199, [1 + 1e-7]])
    above, positive = probabilities.ravel() > thresholds[:, None], targets.ravel() > 0
    return above[:, ~positive].mean(axis=1), above[:, positive].mean(axis=1)


def scores(targets, probabilities):
    """The published metrics and the share of lesion, without Keras."""
    false_positive, true_positive = roc(targets, probabilities)
    return {
        "accuracy": (targets.argmax(-1) == probabilities.argmax(-1)).mean(),
        "auc": -np.trapezoid(true_positive, false_positive),
        "lesion_share": (probabilities[..., 0] > probabilities[..., 1]).mean(),
    }


def without_loss(values):
    return {name: values[name] for name in METRICS if name != "loss"}


@pytest.mark.parametrize("label", SETTINGS)
def test_still_metrics_are_those_of_the_saved_weights(straight, phantoms, label):
    """Without augmentation, "code" or not: flips, contrast and brightness are for training alone."""
    run = straight[label]
    targets, probabilities = predicted(run, phantoms)
    assert (targets > 1).any()  # the mirror's soft pixels take part
    assert run.metrics["images"] == len(targets) == 10
    assert without_loss(run.metrics["still"]) == pytest.approx(scores(targets, probabilities), abs=1e-6)


def test_published_bce_puts_each_softmax_logit_through_a_sigmoid(straight, phantoms):
    """What Keras on TensorFlow makes of BinaryCrossentropy behind a softmax: not the loss of the probabilities."""
    run = straight["momentum"]
    y, probabilities = predicted(run, phantoms)
    model = compiled(run.config)
    model.load_weights(run.folder / STATE)
    model.get_layer("probability").activation = keras.activations.linear
    logits = model.predict(arrays.published(phantoms, run.config).images, batch_size=1, verbose=0).astype(np.float64)
    np.testing.assert_allclose(softmax(logits, axis=-1), probabilities, atol=1e-6)
    of_logits, of_probabilities = (
        -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean() for p in (expit(logits), probabilities)
    )
    assert run.metrics["still"]["loss"] == pytest.approx(of_logits, rel=1e-5)
    assert abs(of_logits - of_probabilities) > 0.01


@pytest.mark.parametrize("label", SETTINGS)
def test_auc_is_that_of_the_ranking_to_within_its_thresholds(straight, phantoms, label):
    """200 thresholds cut the curve's corners: off by at most half the boxes that the chords cross."""
    targets, probabilities = predicted(straight[label], phantoms)
    bound = np.prod(np.diff(roc(targets, probabilities)), axis=0).sum() / 2
    exact = roc_auc_score(targets.ravel() > 0, probabilities.ravel())
    assert straight[label].metrics["still"]["auc"] == pytest.approx(exact, abs=bound)


@pytest.fixture(scope="module")
def motionless(phantoms, tmp_path_factory):
    """A run whose rate is too small to move a float32 weight."""
    store = store_in(tmp_path_factory.mktemp("motionless"))
    config = small(epochs=2, learning_rate=1e-12, loss="kld", second_channel="complement")
    train(config, phantoms, store)
    return store.find(config, phantoms.fingerprint)


def test_training_metrics_average_over_the_whole_epoch(motionless, phantoms):
    targets, probabilities = predicted(motionless, phantoms)
    y = np.clip(targets, 1e-7, 1)
    divergence = (y * np.log(y / probabilities)).sum(-1).mean(axis=(1, 2))
    assert divergence.max() > 1.001 * divergence.min()  # no image can stand for all
    expected = {"loss": divergence.mean(), **scores(targets, probabilities)}
    assert motionless.history.epoch.tolist() == [1, 2]
    for row in motionless.history.to_dict("records"):
        assert {name: row[name] for name in METRICS} == pytest.approx(expected, abs=1e-6)
    assert motionless.metrics["training"] == {name: row[name] for name in METRICS}
    assert motionless.metrics["still"] == pytest.approx(expected, abs=1e-6)
