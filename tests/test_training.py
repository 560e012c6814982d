"""Training on phantoms: the same bits twice, killed or not, and all measurements against independent computations."""

import errno
import itertools
import json
import os
import platform
import re
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
from PIL import Image
from scipy.special import expit, softmax
from sklearn.metrics import f1_score
from small_study import Killed, make_study

from busi import study, training
from busi.config import RunConfig, StudyError
from busi.dataset import splits
from busi.dataset.arrays import Arrays, all_arrays, published_arrays, resize_image, restore
from busi.dataset.catalog import read_catalog, read_grey, read_union
from busi.dataset.parts import load_parts
from busi.dataset.preprocessing import Scaling, scale
from busi.runs import BEST, STATE, Run, Store
from busi.scoring import scores
from busi.training import compile_network, predict_lesion, stream_batches, train

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
"""Settings of published runs that are trained in several ways."""


def small(epochs=EPOCHS, **settings):
    """Return a published run from 204 to 20 pixels."""
    return RunConfig(image_size=204, base_filters=2, epochs=epochs, **settings)


def tiny(**settings):
    """Return a held-out run that learns fast, soon gets worse again and ends early."""
    fields = {"learning_rate": 0.05, "epochs": 8, "patience": 2, "preprocessing": "augment", **settings}
    return RunConfig(protocol="heldout", image_size=32, base_filters=2, **fields)


@pytest.fixture(autouse=True, scope="module")
def here(tmp_path_factory):
    """Make a study without files the current folder and return it."""
    folder = make_study(tmp_path_factory.mktemp("here") / "study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def phantoms(phantom_dir, here):
    """Return the catalog of the twelve phantom images, ten of which show a lesion."""
    return read_catalog(phantom_dir, expected=None)


@pytest.fixture(scope="module")
def quarters(quarters_dir, here):
    """Return the catalog of 34 small phantom images, enough for a cross-validation."""
    return read_catalog(quarters_dir, expected=None)


def read_arrays(catalog, config):
    """Return the images of a published run in the order in which it sees them."""
    return published_arrays(catalog, config).shuffled(config.seed)


def store_in(folder, catalog):
    return Store(folder / "runs", catalog.fingerprint)


# Runs compared bit for bit


def read_weights(run, name=STATE):
    """Return the weights, and in the state the optimizer's, by their place in the file."""
    tensors = {}
    with h5py.File(run.folder / name) as file:
        file.visititems(lambda name, item: tensors.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return tensors


def assert_same(run, other):
    """Assert equality to the bit: weights, optimizer, predictions, every epoch, and everything that was decided."""
    assert run.config == other.config
    names = (STATE, BEST) if run.config.protocol == "heldout" else (STATE,)
    for name in names:
        tensors, others = read_weights(run, name), read_weights(other, name)
        assert tensors.keys() == others.keys()
        assert any("optimizer" in place for place in tensors)
        for place in tensors:
            np.testing.assert_array_equal(tensors[place], others[place], err_msg=f"{name}: {place}")
    histories = [each.history.drop(columns="seconds") for each in (run, other)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert run.outcome | {"seconds": 0} == other.outcome | {"seconds": 0}
    assert_same_predictions(run, other)


def assert_same_predictions(run, other):
    assert run.predictions.keys() == other.predictions.keys()
    for part, (names, probability) in run.predictions.items():
        assert names.tolist() == other.predictions[part].names.tolist()
        np.testing.assert_array_equal(probability, other.predictions[part].probability)


# Training in another process

TRAIN = """
import json, sys
from pathlib import Path
from busi import training
from busi.config import RunConfig
from busi.dataset.catalog import read_catalog
from busi.runs import Store

data, store = map(Path, sys.argv[1:3])
config = RunConfig(**json.loads(sys.argv[3]))
catalog = read_catalog(data, expected=None)
training.train(config, catalog, Store(store / "runs", catalog.fingerprint))
"""
"""Program that trains a run. Arguments: data folder, folder of the store, configuration."""


def start(data_dir, folder, config, *, program=TRAIN, **environment):
    """Start training in another process, whose output goes to ``folder/output``."""
    folder.mkdir(exist_ok=True)
    with (folder / "output").open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-c", program, data_dir, folder, config.model_dump_json()],
            env=os.environ | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def kill_elsewhere(data_dir, folder, config, catalog):
    """Kill a process as soon as it has saved an epoch, and return the seconds of the epochs that it has saved."""
    work = store_in(folder, catalog).work(config)
    process = start(data_dir, folder, config)
    while process.poll() is None and not any(work.glob("epoch-*")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, (folder / "output").read_text()
    return pd.read_csv(max(work.glob("epoch-*")) / "history.csv").seconds.tolist()


@pytest.fixture(scope="module")
def elsewhere(phantoms, phantom_dir, tmp_path_factory):
    """Start training in other processes, which go on while this one trains: most of their time is TensorFlow's start.

    Returns:
        Folder of the stores, and for each of `SETTINGS` what becomes of its process.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    with ThreadPoolExecutor() as pool:
        ends = {}
        for label, settings in SETTINGS.items():
            ends[label] = pool.submit(kill_elsewhere, phantom_dir, folder / label, small(**settings), phantoms)
        yield folder, ends


@pytest.fixture(scope="module")
def straight(elsewhere, phantoms, tmp_path_factory):
    """Return an uninterrupted run of each of `SETTINGS`, trained in this process."""
    store = store_in(tmp_path_factory.mktemp("straight"), phantoms)
    return {label: train(small(**settings), phantoms, store) for label, settings in SETTINGS.items()}


@pytest.fixture(scope="module")
def heldout(quarters, tmp_path_factory):
    """Return an uninterrupted held-out run."""
    return train(tiny(), quarters, store_in(tmp_path_factory.mktemp("heldout"), quarters))


# The same bits


def test_an_epoch_in_one_execution_trains_the_same_bits_as_one_step_after_another(straight, phantoms):
    model, arrays = compile_network(small()), read_arrays(phantoms, small())
    stream = stream_batches(arrays, small(), 1, first_epoch=1)
    model.fit(stream, steps_per_epoch=len(arrays), epochs=EPOCHS, shuffle=False, verbose=0)
    whole = compile_network(small())
    whole.load_weights(straight["momentum"].folder / STATE)
    for weight, expected in zip(model.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("label", SETTINGS)
def test_a_killed_run_continues_to_the_same_bits(straight, elsewhere, phantoms, label):
    """Its first epochs are trained in another process."""
    folder, ends = elsewhere
    seconds = ends[label].result()
    config, store = small(**SETTINGS[label]), store_in(folder / label, phantoms)
    assert 0 < len(seconds) < EPOCHS
    assert store.find(config) is None

    finished = train(config, phantoms, store)
    assert finished == store.find(config)
    assert_same(finished, straight[label])
    # Measured seconds never repeat: equal ones were not trained again.
    assert finished.history.seconds[: len(seconds)].tolist() == seconds
    assert not store.work(config).exists()


@pytest.mark.parametrize("moved", [False, True], ids=["before the last move", "after it"])
def test_a_run_killed_while_it_is_finished_loses_no_epoch(straight, phantoms, tmp_path, monkeypatch, moved):
    """The last checkpoint becomes the finished folder in one move."""
    store, whole = store_in(tmp_path, phantoms), straight["momentum"]
    checkpoint = store.work(small()) / f"epoch-{EPOCHS:04d}"
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
    finished = train(small(), phantoms, store)
    assert_same(finished, whole)
    assert finished.history.seconds.tolist() == whole.history.seconds.tolist()


@pytest.mark.parametrize(("after", "more"), [("best_epoch", 1), ("epochs", 0)], ids=["training", "finished"])
def test_a_killed_heldout_run_continues_to_the_same_bits(heldout, quarters, tmp_path, monkeypatch, after, more):
    """Each epoch is saved in one move, and the finished run in one more: killed instead of that after so many."""
    left = heldout.outcome[after] + more
    moves = itertools.count()
    rename = Path.rename

    def killed_at_rename(path, target):
        if next(moves) == left:
            raise Killed
        return rename(path, target)

    store = store_in(tmp_path, quarters)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "rename", killed_at_rename)
        train(tiny(), quarters, store)
    before = pd.read_csv(max(store.work(tiny()).glob("epoch-*")) / "history.csv")
    assert before.epoch.tolist() == list(range(1, left + 1))
    assert store.find(tiny()) is None

    # Nothing is looked for where a checkpoint is: that would read the weights of finished runs.
    monkeypatch.delattr(Store, "beginning")
    run = train(tiny(), quarters, store)
    assert_same(run, heldout)
    assert run.history.seconds[:left].tolist() == before.seconds.tolist()


@pytest.mark.parametrize(
    ("config", "files", "copies"), [(small(), 1, 2), (tiny(), 2, 3)], ids=["published", "held-out"]
)
def test_a_disk_without_room_for_a_checkpoint_ends_a_run_before_it_is_written(
    quarters, tmp_path, monkeypatch, config, files, copies
):
    """Momentum is one more number for each weight, Adam has two; a held-out run keeps the best state besides."""
    # The rate and the count of steps are two more numbers.
    wanted = files * 4 * (copies * compile_network(config).count_params() + 2) + 2**20
    left = iter([wanted, wanted - 1])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=next(left)))
    store = store_in(tmp_path, quarters)
    work = store.work(config)
    with pytest.raises(OSError, match=r"disk full: (\d\.\d) MB are free, \1 MB are needed") as caught:
        train(config, quarters, store)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(work))
    assert [folder.name for folder in work.iterdir()] == ["epoch-0001"]


@pytest.mark.parametrize("name", ["state.weights.h5", "history.csv"])
def test_a_checkpoint_that_lost_its_content_is_named_with_the_way_out(phantoms, tmp_path, name):
    """A power failure can leave a renamed file empty, and every further try would end at it."""
    store = store_in(tmp_path, phantoms)
    checkpoint = store.work(small()) / "epoch-0001"
    checkpoint.mkdir(parents=True)
    compile_network(small()).save_weights(checkpoint / "state.weights.h5")
    (checkpoint / "history.csv").write_text("epoch,loss\n1,0.5\n", encoding="utf-8")
    (checkpoint / name).write_bytes(b"")
    with pytest.raises(StudyError, match=rf"{re.escape(str(checkpoint))}: cannot be read .*: delete this folder"):
        train(small(), phantoms, store)


def test_a_longer_run_continues_where_a_shorter_one_ended(straight, phantoms, tmp_path):
    store = store_in(tmp_path, phantoms)
    seconds = train(small(epochs=5), phantoms, store).history.seconds.tolist()
    longer = train(small(), phantoms, store)
    assert_same(longer, straight["momentum"])
    assert longer.history.seconds[:5].tolist() == seconds


def test_a_longer_run_whose_rate_decays_over_all_epochs_starts_anew(phantoms, tmp_path):
    store = store_in(tmp_path, phantoms)
    settings = {"schedule": "exponential", "momentum": 0.0}
    shorter = train(small(epochs=1, **settings), phantoms, store)
    assert store.beginning(small(epochs=2, **settings)) is None
    assert store.beginning(small(epochs=2)) is None
    longer = train(small(epochs=2, **settings), phantoms, store)
    assert longer.history.seconds[0] != shorter.history.seconds[0]


def test_a_last_epoch_may_end_early(phantoms, tmp_path):
    """The second epoch takes three of ten images: its mean loss is theirs, at a rate that moves nothing."""
    config = small(epochs=2, last_steps=3, learning_rate=1e-12)
    run = train(config, phantoms, store_in(tmp_path, phantoms))
    arrays = read_arrays(phantoms, config)[:3]
    model = load_network(run, STATE)
    expected = model.evaluate(arrays.images, arrays.targets, batch_size=1, verbose=0, return_dict=True)
    assert run.history.loss.tolist()[1] == pytest.approx(expected["loss"], rel=1e-5)
    assert run.history.loss[0] != pytest.approx(expected["loss"], rel=1e-5)
    assert run.outcome["end"] == "planned"


def test_more_last_steps_than_an_epoch_has_are_refused(phantoms, tmp_path):
    """They would go on into the order and the augmentation of an epoch that is not planned."""
    store = store_in(tmp_path, phantoms)
    with pytest.raises(StudyError, match=r"^last_steps: got 11; an epoch of these images has 10 steps: set fewer$"):
        train(small(epochs=2, last_steps=11), phantoms, store)


def test_a_heldout_run_that_diverges_at_once_is_scored_as_finding_nothing(quarters, tmp_path):
    config = tiny(optimizer="sgd", learning_rate=1e30, momentum=0.0)
    run = train(config, quarters, store_in(tmp_path, quarters))
    assert (run.outcome["end"], run.outcome["epochs"]) == ("diverged", 1)
    assert scores.score_run(run, quarters).images.predicted_share.eq(0).all()


def test_by_class_and_mixed_differ_in_the_order_alone(phantoms):
    by_class, mixed = (load_parts(small(order=order, seed=3), phantoms).training for order in ("by-class", "mixed"))
    assert by_class.names.tolist() == phantoms.lesions.name.tolist()
    rows = [mixed.names.tolist().index(name) for name in by_class.names]
    assert rows != list(range(len(rows)))
    np.testing.assert_array_equal(mixed.images[rows], by_class.images)
    np.testing.assert_array_equal(mixed.targets[rows], by_class.targets)
    assert load_parts(small(seed=4), phantoms).training.names.tolist() != mixed.names.tolist()


def test_a_loss_that_is_not_a_number_ends_the_run_and_says_so(phantoms, tmp_path, caplog):
    """At the greatest rate that float32 holds, a second step leaves its range on every processor."""
    run = train(small(learning_rate=3e38, loss="kld", clipped=False), phantoms, store_in(tmp_path, phantoms))
    assert run.outcome["end"] == "diverged"
    assert run.outcome["epochs"] == len(run.history) == 1
    assert not np.isfinite(run.history.loss[0])
    assert "the loss of epoch 1 is not a number" in caplog.text


def test_a_longer_heldout_run_continues_where_a_shorter_one_ended(heldout, quarters, tmp_path):
    """First where its epochs ran out, one after the best; then where patience did, with nothing left to train."""
    store = store_in(tmp_path, quarters)
    short = train(tiny(epochs=heldout.outcome["best_epoch"] + 1), quarters, store)
    longer = train(tiny(), quarters, store)
    assert_same(longer, heldout)
    assert longer.history.seconds[: len(short.history)].tolist() == short.history.seconds.tolist()
    longest = train(tiny(epochs=20), quarters, store)
    assert longest.config.epochs == 20
    assert_same(Run(longest.folder, tiny()), heldout)
    assert longest.history.seconds.tolist() == longer.history.seconds.tolist()


def test_a_finished_run_is_not_trained_again(straight, phantoms):
    whole = straight["momentum"]
    store = Store(whole.folder.parents[3], phantoms.fingerprint)
    files = [whole.folder, *whole.folder.iterdir()]
    changed = {file: file.stat().st_mtime_ns for file in files}
    assert train(small(), phantoms, store) == whole
    assert changed == {file: file.stat().st_mtime_ns for file in [whole.folder, *whole.folder.iterdir()]}
    assert not store.work(small()).exists()


def test_the_seed_decides_the_first_weights():
    first, again, other = (compile_network(small(seed=seed)).weights for seed in (0, 0, 1))
    for one, same, another in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, same)
        # Biases begin at zero.
        assert (np.not_equal(one, another) == (one.name == "kernel")).all(), one.path


# Another backend

ON_JAX = {
    "program": f"import sys; sys.modules['tensorflow'] = None  # not installed\n{TRAIN}",
    "KERAS_BACKEND": "jax",
    # Most of the time is compiling: without most optimizations, the test takes two thirds as long.
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}


@pytest.mark.parametrize(
    "config",
    [
        small(loss="kld", preprocessing="code", shuffle=True),
        RunConfig(protocol="heldout", image_size=32, base_filters=2),
    ],
    ids=["published", "held-out"],
)
def test_a_run_continues_with_the_same_numbers_on_jax_without_tensorflow(config, quarters, quarters_dir, tmp_path):
    """One epoch on TensorFlow; two more on either, so that a batch too many in the first would be seen in the next."""
    one, three = (config.model_copy(update={"epochs": epochs}) for epochs in (1, 3))
    mixed_store, straight_store = store_in(tmp_path / "mixed", quarters), store_in(tmp_path / "straight", quarters)
    train(one, quarters, mixed_store)
    process = start(quarters_dir, tmp_path / "mixed", three, **ON_JAX)
    straight = train(three, quarters, straight_store)
    assert process.wait() == 0, (tmp_path / "mixed" / "output").read_text()
    mixed = mixed_store.find(three)
    assert (mixed.environment["backend"], mixed.environment["gpus"]) == ("jax", 0)
    assert mixed.history.epoch.tolist() == [1, 2, 3]
    histories = [run.history.drop(columns="seconds") for run in (mixed, straight)]
    # The spread is a difference of logits around 1, each of them rounded to about 1e-7.
    pd.testing.assert_frame_equal(*histories, rtol=1e-4, atol=1e-6)
    for part, (names, probability) in mixed.predictions.items():
        assert names.tolist() == straight.predictions[part].names.tolist()
        np.testing.assert_allclose(probability, straight.predictions[part].probability, rtol=0, atol=1e-3)
    if config.protocol == "published":
        assert mixed.outcome["still"] == pytest.approx(straight.outcome["still"], rel=1e-4)


def test_a_backend_that_training_is_not_made_for_is_refused_with_the_runs_name(phantoms, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    message = (
        "published/204px-2f-10e/baseline/fold0-seed0: KERAS_BACKEND: got 'torch'; training takes tensorflow or jax: "
        "set one of them"
    )
    with pytest.raises(StudyError) as caught:
        study.find_or_train(small(), phantoms, store_in(tmp_path, phantoms))
    assert str(caught.value) == message


def test_a_processor_is_named_with_its_widest_vectors(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    core = "processor\t: {}\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse2 {}\n\n"
    cpuinfo.write_text(core.format(0, "avx2 avx512f") + core.format(1, "avx2"), encoding="utf-8")
    assert training.processor_name(cpuinfo) == "AMD EPYC, AVX-512"
    cpuinfo.write_text(core.format(0, "avx avx2"), encoding="utf-8")
    assert training.processor_name(cpuinfo) == "AMD EPYC, AVX2"
    cpuinfo.write_text(core.format(0, "avx"), encoding="utf-8")
    assert training.processor_name(cpuinfo) == "AMD EPYC"
    # On an ARM processor Linux names no model, on another system there is no such file.
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd\n", encoding="utf-8")
    assert training.processor_name(cpuinfo) == training.processor_name(tmp_path / "none") == platform.machine()


def test_a_run_says_with_how_many_threads_it_was_trained(motionless, phantoms, phantom_dir, tmp_path):
    """TensorFlow takes their number before its first computation only, so in a process of its own."""
    assert motionless.environment["threads"] == os.cpu_count()
    program = TRAIN.replace("catalog.fingerprint))", "catalog.fingerprint), threads=1)")
    told = "threading = training.tf.config.threading\n"
    told += "print(threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads())\n"
    assert start(phantom_dir, tmp_path / "one", small(epochs=1), program=program + told).wait() == 0
    assert (tmp_path / "one" / "output").read_text().splitlines()[-1] == "1 1"
    assert store_in(tmp_path / "one", phantoms).find(small(epochs=1)).environment["threads"] == 1


# Averaged weights, and answers about mirror images


def averaged(epochs):
    return tiny(average=0.9, flip_test=True, epochs=epochs, patience=0)


@pytest.fixture(scope="module")
def average_run(quarters, tmp_path_factory):
    return train(averaged(3), quarters, store_in(tmp_path_factory.mktemp("averaged"), quarters))


def test_the_best_weights_are_the_optimizers_averages(average_run):
    best = read_weights(average_run, BEST)
    kept = [tensor for place, tensor in best.items() if "optimizer" in place]
    for place, tensor in best.items():
        if "optimizer" not in place:
            assert any(tensor.shape == other.shape and np.array_equal(tensor, other) for other in kept), place
    # Training goes on from the weights themselves.
    state = read_weights(average_run, STATE)
    layers = [place for place in state if "optimizer" not in place]
    assert not any(np.array_equal(state[place], best[place]) for place in layers if state[place].any())


def test_a_run_with_averaged_weights_continues_to_the_same_bits(average_run, quarters, tmp_path):
    store = store_in(tmp_path, quarters)
    train(averaged(1), quarters, store)
    longer = train(averaged(3), quarters, store)
    assert longer.history.seconds[0] == store.find(averaged(1)).history.seconds[0]
    assert_same(longer, average_run)


def test_a_run_that_only_predicts_otherwise_trains_no_epoch_of_its_own(average_run, quarters, tmp_path):
    store = store_in(tmp_path, quarters)
    plain = train(averaged(3).model_copy(update={"flip_test": False}), quarters, store)
    mirrored = train(averaged(3), quarters, store)
    assert mirrored.history.seconds.tolist() == plain.history.seconds.tolist()
    assert_same(mirrored, average_run)
    assert (mirrored.predictions["test"].probability != plain.predictions["test"].probability).any()


def test_kept_answers_are_the_mean_over_an_image_and_its_mirror_image(average_run, quarters):
    model = compile_network(average_run.config)
    model.load_weights(average_run.weights)
    test = load_parts(average_run.config, quarters).test
    expected = predict_lesion(model, test.images, 5)
    mirrored = predict_lesion(model, np.flip(test.images, axis=2), 5)
    expected = (expected + np.flip(mirrored, axis=2)) / 2
    np.testing.assert_allclose(average_run.predictions["test"].probability, expected, atol=1e-6)


# Batches


def draw_epochs(config, batch_size, first_epoch=1):
    """Return the numbers of the images in the batches of three epochs of ten images."""
    numbers = np.arange(10, dtype=np.float32)[:, None, None, None]
    ten = Arrays(numbers.astype(str).ravel(), numbers + np.zeros((10, 2, 2, 1)), numbers + np.zeros((10, 2, 2, 2)))
    steps = 10 // batch_size
    drawn = []
    for images, targets in stream_batches(ten, config, batch_size, first_epoch).take(3 * steps).as_numpy_iterator():
        assert images.shape[1:] == (2, 2, 1) and targets.shape[1:] == (2, 2, 2)
        # Image and target stay together.
        np.testing.assert_array_equal(images[:, 0, 0, 0], targets[:, 1, 1, 1])
        drawn.append(images[:, 0, 0, 0].astype(int).tolist())
    return [drawn[start : start + steps] for start in range(0, 3 * steps, steps)]


def test_unshuffled_batches_are_the_images_as_listed():
    assert draw_epochs(small(), 1) == [[[k] for k in range(10)]] * 3


def test_an_epoch_has_whole_batches_only_and_each_image_at_most_once():
    """Of ten images in batches of four, two are left over: others in every epoch."""
    epochs = draw_epochs(small(shuffle=True), 4)
    drawn = [sorted(np.concatenate(batches).tolist()) for batches in epochs]
    assert [[len(batch) for batch in batches] for batches in epochs] == [[4, 4]] * 3
    assert all(len(set(epoch)) == 8 for epoch in drawn)
    assert len(set(map(tuple, drawn))) > 1


def test_the_order_of_an_epoch_follows_from_its_number_and_the_seed():
    """Whether or not the epochs before it were drawn, so that a resumed run sees the same."""
    config = small(shuffle=True)
    whole = draw_epochs(config, 2)
    assert draw_epochs(config, 2, first_epoch=3)[0] == whole[2]
    assert whole[0] != whole[1] != whole[2]
    assert draw_epochs(small(shuffle=True, seed=1), 2) != whole


def test_a_batch_that_is_larger_than_the_data_is_all_of_them(phantoms, tmp_path):
    run = train(small(epochs=1, batch_size=64, loss="kld", learning_rate=1e-12), phantoms, store_in(tmp_path, phantoms))
    model = load_network(run, STATE)
    arrays = read_arrays(phantoms, run.config)
    expected = model.evaluate(arrays.images, arrays.targets, batch_size=10, verbose=0, return_dict=True)
    assert run.history.loss.tolist() == pytest.approx([expected["loss"]], rel=1e-5)
    assert len(run.predictions["training"].names) == 10


# Metrics of published runs


def load_network(run, name):
    model = compile_network(run.config, planned_steps=1)  # of the optimizer, which is not used
    model.load_weights(run.folder / name)
    return model


def predict_targets(run, phantoms):
    """Return targets and probabilities, float64 (10, 20, 20, 2), from the saved weights."""
    arrays = read_arrays(phantoms, run.config)
    images = arrays.images / 255 if run.config.preprocessing == "code" else arrays.images
    logits = load_network(run, STATE).predict(images, batch_size=1, verbose=0)
    return arrays.targets.astype(np.float64), softmax(logits.astype(np.float64), axis=-1)


def roc(targets, probabilities):
    """Return false and true positive rate at Keras' 200 thresholds, channels pooled.

    A soft pixel is positive in both channels.
    """
    thresholds = np.concatenate([[-1e-7], np.arange(1, 199) / 199, [1 + 1e-7]])
    above, positive = probabilities.ravel() > thresholds[:, None], targets.ravel() > 0
    return above[:, ~positive].mean(axis=1), above[:, positive].mean(axis=1)


def score_published(targets, probabilities):
    """Compute the published metrics and the share of lesion without Keras."""
    false_positive, true_positive = roc(targets, probabilities)
    return {
        "accuracy": (targets.argmax(-1) == probabilities.argmax(-1)).mean(),
        "auc": -np.trapezoid(true_positive, false_positive),
        "lesion_share": (probabilities[..., 0] > probabilities[..., 1]).mean(),
    }


@pytest.mark.parametrize("label", SETTINGS)
def test_still_metrics_are_those_of_the_saved_weights(straight, phantoms, label):
    """Without augmentation, whether or not training augments: flips, contrast and brightness are for training alone."""
    run = straight[label]
    targets, probabilities = predict_targets(run, phantoms)
    assert (targets > 1).any()  # the mirror's soft pixels take part
    assert run.outcome["images"] == len(targets) == 10
    without_loss = {name: run.outcome["still"][name] for name in METRICS if name != "loss"}
    assert without_loss == pytest.approx(score_published(targets, probabilities), abs=1e-6)


@pytest.fixture(scope="module")
def motionless(phantoms, tmp_path_factory):
    """Return a run whose rate is too small to move a float32 weight, be it a bias of 0: pixels there are ties."""
    config = small(epochs=2, learning_rate=1e-44, loss="kld", second_channel="complement")
    return train(config, phantoms, store_in(tmp_path_factory.mktemp("motionless"), phantoms))


def test_training_metrics_average_over_the_whole_epoch(motionless, phantoms):
    targets, probabilities = predict_targets(motionless, phantoms)
    y = np.clip(targets, 1e-7, 1)
    divergence = (y * np.log(y / probabilities)).sum(-1).mean(axis=(1, 2))
    assert divergence.max() > 1.001 * divergence.min()  # no image can stand for all
    expected = {"loss": divergence.mean(), **score_published(targets, probabilities)}
    assert motionless.history.epoch.tolist() == [1, 2]
    for row in motionless.history.to_dict("records"):
        assert {name: row[name] for name in METRICS} == pytest.approx(expected, abs=1e-6)
    assert motionless.outcome["training"] == {name: row[name] for name in METRICS}
    assert motionless.outcome["still"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("label", SETTINGS)
def test_a_published_run_keeps_what_its_saved_weights_predict_for_its_training_images(straight, phantoms, label):
    run = straight[label]
    assert list(run.predictions) == ["training"]
    names, probability = run.predictions["training"]
    _, expected = predict_targets(run, phantoms)
    assert names.tolist() == read_arrays(phantoms, run.config).names.tolist()
    assert names.tolist() != phantoms.lesions.name.tolist() and set(names) == set(phantoms.lesions.name)
    assert probability.dtype == np.float32
    np.testing.assert_allclose(probability, expected[..., 0], rtol=0, atol=1e-6)
    assert run.scaling == Scaling(0, 1)


# The test part decides nothing


def find_rows(catalog, part, config=None):
    """Return the rows of the images of a part, normals included."""
    config = config or tiny()
    return np.flatnonzero(splits.load_split(catalog, config.split)[f"fold{config.fold}"] == part)


def find_lesions(catalog, part):
    return [row for row in find_rows(catalog, part) if catalog.table.image_class[row] != "normal"]


def change_images(catalog, folder, rows, target):
    """Copy the images; turn those of some rows into noise and give them other masks."""
    shutil.copytree(folder, target)
    draw = np.random.default_rng(0)
    for row in catalog.table.loc[rows].itertuples():
        stem = target / row.image_class / row.name
        Image.fromarray(draw.integers(0, 256, (row.height, row.width), np.uint8)).save(f"{stem}.png")
        if row.image_class != "normal":
            for old in (target / row.image_class).glob(f"{row.name}_mask*.png"):
                old.unlink()
            mask = np.zeros((row.height, row.width), bool)
            mask[row.height // 4 : -row.height // 3, row.width // 3 : -row.width // 4] = True
            Image.fromarray(mask).save(f"{stem}_mask.png")
    return read_catalog(target, expected=None)


@pytest.fixture
def retrain(quarters, quarters_dir, tmp_path, monkeypatch):
    """Return a function that trains on images of which some rows are changed, under the split of those that are not."""

    def run(rows):
        monkeypatch.chdir(make_study(tmp_path / "study"))
        other = change_images(quarters, quarters_dir, rows, tmp_path / "changed")
        splits.write_splits(quarters)
        file = splits.split_file("grouped")
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace(quarters.fingerprint, other.fingerprint), encoding="utf-8")
        return other, train(tiny(), other, store_in(tmp_path, other))

    return run


def test_the_test_part_decides_nothing(heldout, retrain, quarters):
    """Nor do normal images in any part: same weights, epochs, threshold and constants, but other predictions."""
    normals = np.flatnonzero(quarters.table.image_class == "normal")
    other, run = retrain(np.union1d(find_rows(quarters, "test"), normals))
    assert other.fingerprint != quarters.fingerprint
    for name in (STATE, BEST):
        ours, theirs = read_weights(run, name), read_weights(heldout, name)
        assert ours.keys() == theirs.keys()
        for place in ours:
            np.testing.assert_array_equal(ours[place], theirs[place], err_msg=f"{name}: {place}")
    histories = [each.history.drop(columns="seconds") for each in (run, heldout)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert run.outcome | {"seconds": 0} == heldout.outcome | {"seconds": 0}
    np.testing.assert_array_equal(
        run.predictions["validation"].probability, heldout.predictions["validation"].probability
    )
    ours, theirs = run.predictions["test"], heldout.predictions["test"]
    assert ours.names.tolist() == theirs.names.tolist()
    assert (ours.probability != theirs.probability).any(axis=(1, 2)).all()


def test_the_validation_part_decides_when_to_end_and_trains_nothing(heldout, retrain, quarters):
    _, run = retrain(find_lesions(quarters, "validation"))
    both = min(len(run.history), len(heldout.history))
    assert run.history.loss[:both].tolist() == heldout.history.loss[:both].tolist()
    assert (run.history.validation_dice[:both] != heldout.history.validation_dice[:both]).any()


# When a held-out run ends


def test_training_ends_patience_epochs_after_the_best(heldout):
    dice = heldout.history.validation_dice
    best = int(dice.idxmax()) + 1
    assert 1 < best < 6
    assert heldout.history.epoch.tolist() == list(range(1, best + 3))
    assert heldout.outcome["best_epoch"] == best
    assert heldout.outcome["epochs"] == best + 2
    assert heldout.outcome["validation_dice"] == dice.max()


NAN = float("nan")


@pytest.mark.parametrize(
    "values, end",
    [
        ([], ""),
        ([0.2], ""),
        ([0.2, 0.3, 0.3], ""),  # one epoch after the first of equals
        ([0.2, 0.3, 0.1, 0.3], "patience"),
        ([0.2, 0.3, 0.1, 0.4], ""),
        ([0.2, NAN], ""),
        ([0.2, 0.3, NAN, NAN], "patience"),
    ],
)
def test_a_run_ends_when_its_patience_has_passed_since_the_best_epoch(values, end):
    history = [{"epoch": epoch, "loss": 0.1, "validation_dice": value} for epoch, value in enumerate(values, start=1)]
    assert training.find_end(history, tiny()) == end
    assert training.find_end(history, tiny(patience=0)) == ""


@pytest.mark.parametrize("protocol", ["published", "heldout"])
@pytest.mark.parametrize("loss", [NAN, float("inf")])
def test_a_run_whose_last_loss_is_no_number_has_diverged(protocol, loss):
    config = small() if protocol == "published" else tiny()
    assert training.find_end([{"loss": loss, "spread": 0.5, "validation_dice": 0.5}], config) == "diverged"


@pytest.mark.parametrize(
    "spreads, end",
    [
        ([0.0] * 10, "constant"),
        ([0.0] * 9, ""),
        ([0.1] + [0.0] * 10, "constant"),
        ([0.0] * 9 + [0.001], ""),
        ([0.0] * 5 + [0.001] + [0.0] * 9, ""),
    ],
)
def test_a_published_run_ends_after_ten_epochs_with_one_answer_for_every_pixel(spreads, end):
    assert training.find_end([{"loss": 0.3, "spread": spread} for spread in spreads], small()) == end


@pytest.mark.parametrize(
    "step, end",
    # Over nine steps the loss falls by 0.0000099, or by 0.0000101, which is more than a tenth of the last digit.
    [(0.0, "constant"), (1.10e-6, "constant"), (1.12e-6, "")],
)
def test_a_dead_run_goes_on_until_its_loss_has_settled(step, end):
    history = [{"loss": 0.307 - step * epoch, "spread": 0.0} for epoch in range(10)]
    assert training.find_end(history, small()) == end


def test_a_dead_network_has_no_spread_and_a_fresh_one_has(phantoms):
    arrays = read_arrays(phantoms, small())
    model = compile_network(small())
    outputs = training.predict_difference(model, arrays.images, 1)
    assert training.measure_spread(model, arrays)["spread"] == pytest.approx(outputs.max() - outputs.min(), abs=1e-6)
    np.testing.assert_allclose(expit(outputs), predict_lesion(model, arrays.images, 1))
    # So certain that no probability is above 1e-7, and yet it sees its images: such a network is not dead.
    model.get_layer("logits").bias.assign([-40.0, 0.0])
    assert predict_lesion(model, arrays.images, 1).max() < 1e-7
    assert training.measure_spread(model, arrays)["spread"] == pytest.approx(outputs.max() - outputs.min(), rel=1e-3)
    model.get_layer("up0_conv2").bias.assign([-1e3, -1e3])
    assert training.measure_spread(model, arrays) == {"spread": 0.0}


# What a held-out run keeps


def predict_part(run, catalog, rows, name=BEST):
    """Predict the probability of lesion at the network's size, from one of the files of weights."""
    raw = all_arrays(catalog, run.config).images[rows]
    images = scale(raw, run.config.preprocessing, run.scaling)
    return softmax(load_network(run, name).predict(images, verbose=0), axis=-1)[..., 0]


def test_the_best_epochs_predictions_of_test_and_validation_part_are_kept(heldout, quarters):
    rows = {"test": find_rows(quarters, "test"), "validation": find_lesions(quarters, "validation")}
    assert heldout.predictions.keys() == rows.keys()
    for part, (names, probability) in heldout.predictions.items():
        assert names.tolist() == quarters.table.name[rows[part]].tolist()
        assert (probability.dtype, probability.shape) == (np.float32, (len(rows[part]), 32, 32))
        best, last = (predict_part(heldout, quarters, rows[part], name) for name in (BEST, STATE))
        np.testing.assert_allclose(probability, best, rtol=0, atol=1e-6)
        assert np.abs(probability - last).max() > 1e-3
    assert any(name.startswith("normal") for name in heldout.predictions["test"].names)
    assert not any(name.startswith("normal") for name in heldout.predictions["validation"].names)


@pytest.mark.parametrize("name", ["heldout", "average_run"])
def test_validation_dice_is_the_best_over_the_thresholds_at_the_networks_size(request, quarters, name):
    """Of averaged weights, where a run averages them."""
    run = request.getfixturevalue(name)
    rows = find_lesions(quarters, "validation")
    probability = predict_part(run, quarters, rows).astype(np.float64)
    truth = all_arrays(quarters, tiny()).targets[rows, ..., 0].astype(np.float64)
    means = []
    for k in range(1, 100):
        inside = probability >= k / 100
        overlap = (truth * inside).sum(axis=(1, 2))
        means.append(np.mean(2 * overlap / (truth.sum(axis=(1, 2)) + inside.sum(axis=(1, 2)))))
    assert run.outcome["validation_dice"] == pytest.approx(max(means), rel=1e-6)


def test_the_threshold_is_the_best_of_the_validation_part_at_original_size(heldout, quarters):
    thresholds = [k / 100 for k in range(1, 100)]
    rows = find_lesions(quarters, "validation")
    dice = np.zeros((len(rows), 99))
    for k, (row, probability) in enumerate(zip(rows, predict_part(heldout, quarters, rows), strict=True)):
        image = quarters.table.loc[row]
        restored = restore(probability, image.height, image.width, heldout.config).ravel()
        truth = read_union(image.masks).ravel()
        dice[k] = [f1_score(truth, restored >= threshold, zero_division=0) for threshold in thresholds]
    assert heldout.threshold == pytest.approx(thresholds[int(np.argmax(dice.mean(axis=0)))])


def test_the_images_that_a_run_is_trained_on_are_counted(heldout, quarters):
    assert heldout.outcome["images"] == len(find_lesions(quarters, "training"))


def test_the_run_folder_alone_is_enough_to_predict_any_image(heldout, quarters, tmp_path, monkeypatch):
    """No data set, no study and no store: only the folder and the pixels of an image."""
    row = find_rows(quarters, "test")[0]
    pixels = read_grey(quarters.table.image[row])
    constants = load_parts(heldout.config, quarters).scaling
    shutil.copytree(heldout.folder, tmp_path / "alone")
    monkeypatch.chdir(tmp_path)

    stored = json.loads((tmp_path / "alone" / "config.json").read_text(encoding="utf-8"))
    run = Run(tmp_path / "alone", RunConfig(**stored["config"]))
    assert run.scaling == constants
    assert run.scaling.deviation not in (0, 1)
    resized = resize_image(pixels / np.float32(255), run.config.image_size, run.config.resize)
    images = scale(resized[None, ..., None], run.config.preprocessing, run.scaling)
    model = compile_network(run.config)
    model.load_weights(run.weights)
    predicted = predict_lesion(model, images, 1)
    np.testing.assert_allclose(predicted[0], run.predictions["test"].probability[0], rtol=0, atol=1e-6)
    assert 0 < run.threshold < 1


# Fates


@pytest.mark.parametrize("order", ["mixed", "by-class"])
def test_the_fate_of_a_run_matches_predictions_with_targets_by_name(phantoms, tmp_path, order):
    config = small(epochs=1, order=order, seed=5)
    run = train(config, phantoms, store_in(tmp_path, phantoms))
    fate = scores.find_or_decide_fate(run, phantoms)
    names, probability = run.predictions["training"]
    arrays = published_arrays(phantoms, config)
    rows = [arrays.names.tolist().index(name) for name in names]
    y, p = arrays.targets[rows, ..., 0].astype(np.float64), probability.astype(np.float64)
    assert fate["crossentropy"] == pytest.approx(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(), abs=1e-6)
    assert list(run.folder.glob("scores-*/fate.json"))
