"""One run: configuration in, finished run folder out.

Training goes epoch by epoch; after each, weights, optimizer and history are put aside in one atomic step, so that a run
killed at any moment goes on from its last whole epoch and ends with the same weights as one that was never killed.
"""

import errno
import logging
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from busi import protocols
from busi.config import RunConfig, StudyError
from busi.dataset.arrays import Arrays
from busi.dataset.catalog import Catalog
from busi.model import losses, optimizers, preprocessing, unet
from busi.runs import BEST, STATE, Run, Store

log = logging.getLogger(__name__)

BACKENDS = ("tensorflow", "jax")
"""Of Keras that training is made for; the other one need not be installed."""

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"

if ON_TENSORFLOW:
    import tensorflow as tf

    # Every run is traced anew, which TensorFlow takes for a mistake where an epoch is one call.
    tf.get_logger().addFilter(lambda record: "triggered tf.function retracing" not in record.getMessage())

FLOAT32 = 4
"""Bytes of a number: weights and optimizer are kept in single precision whatever the arithmetic."""

ROOM = 2**20
"""Bytes that a checkpoint takes at most beside its numbers: HDF5's own, the history."""


def train(config: RunConfig, data: Catalog, store: Store, *, threads: int | None = None) -> Run:
    """The finished run of ``config`` on ``data``: found in the store, or trained into it.

    Args:
        config: The run.
        data: The verified images.
        store: Where finished runs are looked for and put.
        threads: Of TensorFlow's arithmetic; None leaves it alone. Another count gives other rounding. Only has an
            effect in a process that has computed nothing yet.

    Returns:
        The run, gathered into the store's results.

    Raises:
        StudyError: Keras is set to another backend than `BACKENDS`.
    """
    run = store.find(config, data.fingerprint)
    if run is None:
        with store.lock(config, data.fingerprint):
            # Another process may have finished it while this one waited for the lock.
            run = store.find(config, data.fingerprint) or _train(config, data, store, threads)
    return store.gather(run)


def compiled(config: RunConfig, metrics: list | None = None, steps_per_execution: int = 1) -> keras.Model:
    """The network of ``config``, freshly initialised from its seed, with its loss and optimizer.

    Args:
        config: The run.
        metrics: What Keras accumulates beside the loss.
        steps_per_execution: Steps that `fit` takes without coming back to Python; a divisor of an epoch's, or the next
            epoch begins in the midst of one.
    """
    keras.utils.set_random_seed(config.seed)
    model = unet.build(
        config.image_size,
        config.base_filters,
        config.upsampling,
        config.precision,
        upsampling_steps=config.upsampling_steps,
        padding=config.padding,
    )
    model.compile(optimizers.get(config), losses.get(config), metrics=metrics, steps_per_execution=steps_per_execution)
    model.optimizer.build(model.trainable_variables)
    return model


def _train(config: RunConfig, data: Catalog, store: Store, threads: int | None) -> Run:
    if (backend := keras.backend.backend()) not in BACKENDS:
        raise StudyError(f"KERAS_BACKEND: got {backend!r}; training takes {' or '.join(BACKENDS)}: set one of them")
    _set_threads(threads)
    keras.utils.clear_session()  # of the run before, whose graphs would stay in memory
    protocol = protocols.of(config, data)
    batch_size = min(config.batch_size, len(protocol.training))
    steps = len(protocol.training) // batch_size
    # An epoch an execution: coming back to Python after every step takes time that counts where steps are short. JAX
    # would compile every step of an execution by itself.
    model = compiled(config, protocol.metrics(), steps_per_execution=steps if ON_TENSORFLOW else 1)
    work = store.work(config, data.fingerprint)
    work.mkdir(parents=True, exist_ok=True)
    history = _resume(model, work, store.shorter(config, data.fingerprint))
    if len(history) < config.epochs and not protocol.ended(history):
        model.fit(
            batches(protocol.training, config, batch_size, first_epoch=len(history) + 1),
            steps_per_epoch=steps,
            initial_epoch=len(history),
            epochs=config.epochs,
            callbacks=[_Epochs(config, protocol, history, work)],
            shuffle=False,
            verbose=0,
        )
    checkpoint = _newest(work)
    scores = protocol.score(model, history, checkpoint)
    run = store.finish(config, data.fingerprint, checkpoint, scores, _environment(threads))
    shutil.rmtree(work)
    return run


def batches(arrays: Arrays, config: RunConfig, batch_size: int, first_epoch: int):
    """Batches, epoch after epoch without end; what is left of an epoch after its last whole batch is not used in it.

    Each epoch draws from its own seed, so that a resumed run sees what an uninterrupted one would.

    Returns:
        What `fit` takes: pairs of images (batch_size, s, s, 1) and targets (batch_size, o, o, 2), float32, as a
        `tf.data.Dataset` on TensorFlow, as an iterator elsewhere.
    """
    whole = arrays.images, arrays.targets

    def drawn(epoch: int) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng([config.seed, epoch])
        seed = int(draw.integers(2**31 - 1))
        images, targets = preprocessing.augment(*whole, config.preprocessing, seed)
        order = draw.permutation(len(images)) if config.shuffle else slice(None)
        return images[order], targets[order]

    if ON_TENSORFLOW:
        return _dataset(drawn, whole, batch_size, first_epoch)
    return _iterator(drawn, batch_size, first_epoch)


def _dataset(drawn: Callable, whole: tuple[np.ndarray, np.ndarray], batch_size: int, first_epoch: int):
    """One stream for the whole of `fit`: a pipeline built anew every epoch stalls TensorFlow between epochs.

    Python hands it an epoch at a time, not a batch, and from a function: with a generator anywhere in the stream the
    steps themselves are slower.
    """

    def in_batches(epoch: "tf.Tensor") -> "tf.data.Dataset":
        tensors = tf.numpy_function(drawn, [epoch], [array.dtype for array in whole])
        shaped = tuple(tf.ensure_shape(tensor, array.shape) for tensor, array in zip(tensors, whole, strict=True))
        return tf.data.Dataset.from_tensor_slices(shaped).batch(batch_size, drop_remainder=True)

    return tf.data.Dataset.counter(first_epoch).flat_map(in_batches)


def _iterator(drawn: Callable, batch_size: int, first_epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for epoch in count(first_epoch):
        images, targets = drawn(epoch)
        for end in range(batch_size, len(images) + 1, batch_size):
            yield images[end - batch_size : end], targets[end - batch_size : end]


class _Epochs(keras.callbacks.Callback):
    """Keeps the history, puts a checkpoint aside after every epoch and says so."""

    def __init__(self, config: RunConfig, protocol, history: list[dict], work: Path):
        super().__init__()
        self.config, self.protocol, self.history, self.work = config, protocol, history, work
        # In a notebook a bar, anywhere else the log's line an epoch.
        self.bar = tqdm(
            total=config.epochs,
            initial=len(history),
            desc=config.label,
            unit="epoch",
            disable="ipykernel" not in sys.modules,
        )

    def on_train_begin(self, logs=None):
        if self.history:
            log.info("%s: goes on after epoch %d", self.config.label, len(self.history))

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        values = {name: float(value) for name, value in logs.items()} | self.protocol.measured(self.model)
        seconds = round(time.perf_counter() - self.start, 3)
        self.history.append({"epoch": epoch + 1, **values, "seconds": seconds})
        _checkpoint(self.model, self.history, self.work, best=self.protocol.improved(self.history))
        self.model.stop_training = self.protocol.ended(self.history)
        self.bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        self.bar.update()
        measured = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in values.items())
        left = 0 if self.model.stop_training else (self.config.epochs - epoch - 1) * seconds / 60
        so_far = f"epoch {epoch + 1} of {self.config.epochs}, {measured}"
        log.info("%s: %s; this run: %.0f min left", self.config.label, so_far, left)


def _checkpoint(model: keras.Model, history: list[dict], work: Path, *, best: bool) -> None:
    fresh, last = work / "fresh", _newest(work)
    best_before = last / BEST if last and (last / BEST).is_file() else None
    shutil.rmtree(fresh, ignore_errors=True)
    _refuse_full_disk(work, model, files=2 if best or best_before else 1)
    fresh.mkdir()
    model.save_weights(fresh / STATE)
    pd.DataFrame(history).to_csv(fresh / "history.csv", index=False)
    if best:
        shutil.copyfile(fresh / STATE, fresh / BEST)
    elif best_before:
        shutil.copyfile(best_before, fresh / BEST)
    fresh.rename(work / f"epoch-{len(history):04d}")
    for old in sorted(work.glob("epoch-*"))[:-1]:
        shutil.rmtree(old)


def _refuse_full_disk(work: Path, model: keras.Model, files: int) -> None:
    """Before ``files`` of the model's state are written: HDF5 that runs out of space takes the process down with it."""
    variables = [*model.variables, *model.optimizer.variables]
    wanted = files * sum(math.prod(each.shape) * FLOAT32 for each in variables) + ROOM
    if (free := shutil.disk_usage(work).free) < wanted:
        raise OSError(errno.ENOSPC, f"disk full: {free / 1e6:.1f} MB are left, {wanted / 1e6:.1f} MB wanted", str(work))


def _newest(work: Path) -> Path | None:
    """The newest checkpoint's folder: ``history.csv``, the state, and the best epoch's where there is one."""
    return max(work.glob("epoch-*"), default=None)


def _resume(model: keras.Model, work: Path, shorter: Run | None) -> list[dict]:
    """Load the newest checkpoint, which is the shorter run's end where nothing is newer; returns its epochs."""
    if shorter and not _newest(work):
        fresh = work / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        wanted = {"history.csv", STATE, BEST}
        shutil.copytree(shorter.folder, fresh, ignore=lambda _, names: set(names) - wanted)
        fresh.rename(work / f"epoch-{len(shorter.history):04d}")
    if not (folder := _newest(work)):
        return []
    model.load_weights(folder / STATE)
    return pd.read_csv(folder / "history.csv").to_dict("records")


def _environment(threads: int | None) -> dict:
    backend = keras.backend.backend()
    return {
        "finished": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": backend,
        backend: __import__(backend).__version__,
        "numpy": version("numpy"),
        "processor": _processor(),
        "gpus": _gpus(),
        "cores": os.cpu_count(),
        "threads": (threads if ON_TENSORFLOW else None) or os.cpu_count(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _gpus() -> int:
    # All devices: asked for GPUs alone, JAX fails where there are none.
    return sum(device.startswith("gpu") for device in keras.distribution.list_devices())


def _set_threads(threads: int | None) -> None:
    """TensorFlow alone has these; set once, before it computes anything."""
    if threads is None or not ON_TENSORFLOW:
        return
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
