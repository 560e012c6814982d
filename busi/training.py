"""Training of one run, from its configuration and the images to the folder of the finished run.

After each epoch, weights, optimizer and history are saved in one atomic step. A run that is killed at any moment
therefore continues from its last whole epoch, and ends with the same weights as one that was never killed.
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
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from scipy.special import expit
from tqdm.keras import TqdmCallback

from busi import selection
from busi.config import CONSTANT_EPOCHS, CONSTANT_SPREAD, SETTLED, RunConfig, StudyError
from busi.dataset import preprocessing
from busi.dataset.arrays import Arrays, restore
from busi.dataset.catalog import Catalog
from busi.dataset.parts import Parts, load_parts, read_truths
from busi.model import unet
from busi.model.losses import make_loss
from busi.model.metrics import published_metrics
from busi.model.optimizers import make_optimizer
from busi.runs import BEST, STATE, Predictions, Run, Store, find_checkpoint

log = logging.getLogger(__name__)

BACKENDS = ("tensorflow", "jax")
"""Keras backends that training works with; only the one in use needs to be installed."""

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"

if ON_TENSORFLOW:
    import tensorflow as tf

    # TensorFlow warns of repeated tracing, but every run has to trace its own graphs.
    tf.get_logger().addFilter(lambda record: "triggered tf.function retracing" not in record.getMessage())

VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}
"""Names of a processor's vector instructions by their flags in Linux, the widest first."""

FLOAT32_BYTES = 4
"""Size of a number in a weights file: weights and optimizer are kept in float32 under every precision."""

CONSTANT_SAMPLE = 16
"""Approximate number of training images that are looked at to find a constant output."""

SPARE_BYTES = 2**20
"""Upper bound of the bytes that a checkpoint takes besides its numbers: HDF5's own structures, the history."""


def train(config: RunConfig, catalog: Catalog, store: Store, *, threads: int | None = None) -> Run:
    """Train the run of ``config`` on ``catalog`` into ``store`` and return it; if it is finished already, return that.

    Args:
        config: The run.
        catalog: The verified images.
        store: Store that the finished run is put into.
        threads: Number of threads of TensorFlow's arithmetic; None leaves the choice to TensorFlow. It changes how sums
            are rounded. TensorFlow raises RuntimeError if it is changed after the first computation of a process.

    Raises:
        StudyError: Keras runs on a backend that is not in `BACKENDS`, or an epoch has fewer than ``config.last_steps``
            steps, a checkpoint cannot be read; or as `busi.dataset.parts.load_parts`.
        OSError: The disk is full, or the store cannot be written.
    """
    with store.lock(config):
        # Another process may have finished the run while this one waited for the lock.
        return store.find(config) or _train(config, catalog, store, threads)


def compile_network(
    config: RunConfig,
    metrics: list[keras.metrics.Metric] | None = None,
    *,
    planned_steps: int = 0,
    steps_per_execution: int = 1,
) -> keras.Model:
    """Build the network of ``config``, freshly initialised from its seed, with its loss and optimizer.

    Args:
        config: The run.
        metrics: Metrics that Keras accumulates besides the loss.
        planned_steps: As in `busi.model.optimizers.make_optimizer`.
        steps_per_execution: Steps that `fit` takes without returning to Python. Must divide the number of steps of an
            epoch, or the next epoch would begin in the middle of an execution.
    """
    # Before the network is built, because its initial weights are drawn from this seed.
    keras.utils.set_random_seed(config.seed)
    model = unet.build(config)
    optimizer = make_optimizer(config, planned_steps)
    model.compile(optimizer, make_loss(config), metrics=metrics, steps_per_execution=steps_per_execution)
    # Now, not in the first step, because a checkpoint is loaded into the optimizer's variables.
    model.optimizer.build(model.trainable_variables)
    return model


def plan_steps(config: RunConfig, images: int) -> tuple[int, int]:
    """Return the size of a batch, and the number of steps that an epoch of ``images`` images has."""
    # A batch larger than the training part would never be filled.
    batch_size = min(config.batch_size, images)
    return batch_size, images // batch_size


def predict_difference(model: keras.Model, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Predict the logit of lesion minus that of background, float32 (n, o, o), for scaled images (n, s, s, 1)."""
    # Not `predict`, whose graph would unroll as many steps as `fit` takes in one execution.
    starts = range(0, len(images), batch_size)
    batches = [model.predict_on_batch(images[start : start + batch_size]) for start in starts]
    logits = np.concatenate(batches)
    return logits[..., 0] - logits[..., 1]


def predict_lesion(model: keras.Model, images: np.ndarray, batch_size: int, *, flip_too: bool = False) -> np.ndarray:
    """Predict the probability of lesion, float32 (n, o, o), for scaled images (n, s, s, 1).

    Args:
        model: The network.
        images: Scaled images, float32 (n, s, s, 1).
        batch_size: Images that are predicted together.
        flip_too: Whether to average the prediction for the image with that for its mirror image, flipped back.
    """
    if flip_too:
        mirrored = predict_lesion(model, images[:, :, ::-1], batch_size)[:, :, ::-1]
        return (predict_lesion(model, images, batch_size) + mirrored) / 2
    # The softmax of two channels is the sigmoid of their difference.
    return expit(predict_difference(model, images, batch_size))


@contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Replace the weights with the optimizer's moving averages, if it keeps any, inside a ``with`` statement."""
    if not model.optimizer.use_ema:
        yield
        return
    current = [keras.ops.copy(variable) for variable in model.trainable_variables]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, current, strict=True):
            variable.assign(value)


def measure_validation(model: keras.Model, validation: Arrays, batch_size: int) -> dict[str, float]:
    """Compute `validation_dice`: mean Dice of the validation images at the network's output size and best threshold.

    The final threshold is chosen by mean Dice as well, so that epochs are compared by what the run will be scored on.
    This score means the same under every loss, and it rewards a network that ranks pixels well even while all its
    probabilities are small.
    """
    probability = predict_lesion(model, validation.images, batch_size)
    truths = validation.targets[..., 0]
    return {"validation_dice": float(selection.dice_by_threshold(truths, probability).max())}


def _train(config: RunConfig, catalog: Catalog, store: Store, threads: int | None) -> Run:
    backend = keras.backend.backend()
    if backend not in BACKENDS:
        raise StudyError(f"KERAS_BACKEND: got {backend!r}; training takes {' or '.join(BACKENDS)}: set one of them")
    _set_threads(threads)
    keras.utils.clear_session()  # or the graphs of the previous run would stay in memory
    parts = load_parts(config, catalog)
    _, steps = plan_steps(config, len(parts.training))
    if config.last_steps > steps:
        raise StudyError(f"last_steps: got {config.last_steps}; an epoch of these images has {steps} steps: set fewer")
    # An epoch is one execution, because returning to Python after every step takes long compared with short steps. Not
    # on JAX, which would compile every step of an execution separately, nor where a shorter last epoch would end within
    # an execution.
    one_execution = ON_TENSORFLOW and not config.last_steps
    model = compile_network(
        config,
        # Held-out runs are judged on their validation part, so they need no metric of training but the loss.
        published_metrics() if config.protocol == "published" else [],
        planned_steps=steps * config.epochs,
        steps_per_execution=steps if one_execution else 1,
    )
    work = store.work(config)
    work.mkdir(parents=True, exist_ok=True)
    # Weights, optimizer and history of the last whole epoch; a fresh run has none.
    history = _resume(model, config, store)
    _fit(model, config, parts, history, work)
    checkpoint = find_checkpoint(work)
    outcome = _conclude(config, catalog, parts, model, history, checkpoint)
    run = store.finish(config, checkpoint, outcome, _describe_environment(threads))
    # Only now, because the checkpoints are needed until the run is finished.
    shutil.rmtree(work)
    return run


def _fit(model: keras.Model, config: RunConfig, parts: Parts, history: list[dict], work: Path) -> None:
    """Train the epochs that ``history`` lacks, and append them to it."""
    batch_size, steps = plan_steps(config, len(parts.training))
    after_epoch = _AfterEpoch(config, parts, history, work)
    for last_epoch, epoch_steps in _plan_epochs(config, steps):
        if len(history) < last_epoch and not find_end(history, config):
            # A progress bar only in a notebook; elsewhere the log has one line for each epoch.
            bars = [TqdmCallback(verbose=0, desc=config.label)] if "ipykernel" in sys.modules else []
            model.fit(
                stream_batches(parts.training, config, batch_size, first_epoch=len(history) + 1),
                steps_per_epoch=epoch_steps,
                initial_epoch=len(history),
                epochs=last_epoch,
                callbacks=[after_epoch, *bars],
                shuffle=False,
                verbose=0,
            )


def _plan_epochs(config: RunConfig, steps: int) -> list[tuple[int, int]]:
    """Return the last epoch, and the number of steps per epoch, of each series of epochs of equal length."""
    if not config.last_steps:
        return [(config.epochs, steps)]
    return [(config.epochs - 1, steps), (config.epochs, config.last_steps)]


def find_end(history: list[dict], config: RunConfig) -> str:
    """Return why training ends after the epochs of ``history`` although more are planned; "" if it goes on.

    "diverged": the loss is not finite. "constant": for `CONSTANT_EPOCHS` epochs, a published run's output has been the
    same at every pixel, and its loss has hardly changed (`SETTLED`). "patience": `RunConfig.patience` epochs have
    passed since the best one of a held-out run.
    """
    if not history:
        return ""
    if not math.isfinite(history[-1]["loss"]):
        return "diverged"
    if config.protocol == "published":
        last = pd.DataFrame(history[-CONSTANT_EPOCHS:])
        is_constant = len(last) == CONSTANT_EPOCHS and last.spread.max() <= CONSTANT_SPREAD
        # The output may be constant while what leads to it still changes: biases, and weights behind constant features.
        has_settled = last.loss.max() - last.loss.min() <= SETTLED
        return "constant" if is_constant and has_settled else ""
    if config.patience and len(history) - selection.best_epoch(history) >= config.patience:
        return "patience"
    return ""


def measure_spread(model: keras.Model, training: Arrays) -> dict[str, float]:
    """Compute `spread`: highest minus lowest difference of the logits in some training images, at the current weights.

    It is 0 for a dead network, whose output is the same at every pixel of every image. The spread of the probabilities
    would also be 0 if all of them were next to 0, and such a network may still recover.
    """
    # Predicting every image would take a third as long as the epoch itself.
    sample = training.images[:: max(1, len(training) // CONSTANT_SAMPLE)]
    return {"spread": float(np.ptp(predict_difference(model, sample, batch_size=1)))}


def _conclude(
    config: RunConfig, catalog: Catalog, parts: Parts, model: keras.Model, history: list[dict], folder: Path
) -> dict:
    """Write ``predictions.npz`` into ``folder`` and return the run's outcome, as `busi.runs.Run.outcome`."""
    outcome = {
        "images": len(parts.training),
        "seconds": sum(row["seconds"] for row in history),
        "epochs": len(history),
        "end": find_end(history, config) or "planned",
        "parameters": model.count_params(),
        "scaling": parts.scaling._asdict(),
    }
    if config.protocol == "published":
        training = parts.training
        # With the final weights, whereas the published numbers are averages over an epoch in which the weights change.
        still = model.evaluate(training.images, training.targets, batch_size=1, verbose=0, return_dict=True)
        # As the paper reports them: averaged over the last epoch.
        outcome["training"] = {name: history[-1][name] for name in still}
        outcome["still"] = still
        _write_predictions(folder, _predict_parts(model, {"training": training}, config))
        return outcome
    # A longer run continues with the weights of the last epoch; predictions come from those of the best one.
    model.load_weights(folder / BEST)
    predictions = _predict_parts(model, {"validation": parts.validation, "test": parts.test}, config)
    _write_predictions(folder, predictions)
    best = selection.best_epoch(history)
    return outcome | {
        "threshold": _choose_threshold(predictions["validation"], catalog, config),
        "best_epoch": best,
        "validation_dice": history[best - 1]["validation_dice"],
    }


def _predict_parts(model: keras.Model, parts: dict[str, Arrays], config: RunConfig) -> dict[str, Predictions]:
    predictions = {}
    for name, arrays in parts.items():
        probability = predict_lesion(model, arrays.images, config.batch_size, flip_too=config.flip_test)
        # A network that diverged in its first epoch predicts NaN; it is scored as one that finds nothing.
        probability = np.nan_to_num(probability, nan=0.0)
        predictions[name] = Predictions(np.asarray(arrays.names, dtype=str), probability)
    return predictions


def _write_predictions(folder: Path, predictions: dict[str, Predictions]) -> None:
    arrays = {}
    for part, answers in predictions.items():
        arrays[f"{part}_names"] = answers.names
        arrays[f"{part}_probability"] = answers.probability
    np.savez_compressed(folder / "predictions.npz", **arrays)


def _choose_threshold(validation: Predictions, catalog: Catalog, config: RunConfig) -> float:
    """Choose the threshold on the validation images at their original size, with all predicted regions kept."""
    truths = read_truths(catalog, validation.names)
    restored = [
        restore(probability, *truth.shape, config)
        for probability, truth in zip(validation.probability, truths, strict=True)
    ]
    return selection.choose_threshold(truths, restored)


def stream_batches(arrays: Arrays, config: RunConfig, batch_size: int, first_epoch: int):
    """Return an endless stream of batches, epoch after epoch; images left over after the last whole batch are skipped.

    Each epoch has a seed of its own, so that a resumed run sees the same images as an uninterrupted one.

    Returns:
        Pairs of images (batch_size, s, s, 1) and targets (batch_size, o, o, 2), float32, in a form that `fit` takes: a
        `tf.data.Dataset` on TensorFlow, an iterator elsewhere.
    """
    whole = arrays.images, arrays.targets

    def draw_epoch(epoch: int) -> tuple[np.ndarray, np.ndarray]:
        # Seeded by the run's seed and the epoch, so that a resumed run needs no generator state from earlier epochs.
        generator = np.random.default_rng([config.seed, epoch])
        seed = int(generator.integers(2**31 - 1))
        images, targets = preprocessing.augment(*whole, config.preprocessing, seed)
        # Drawn after the augmentation, which is therefore the same with and without shuffling.
        order = generator.permutation(len(images)) if config.shuffle else slice(None)
        return images[order], targets[order]

    if ON_TENSORFLOW:
        return _stream_dataset(draw_epoch, whole, batch_size, first_epoch)
    return _iterate_batches(draw_epoch, batch_size, first_epoch)


def _stream_dataset(draw_epoch: Callable, whole: tuple[np.ndarray, np.ndarray], batch_size: int, first_epoch: int):
    """Return one stream for the whole of `fit`, because building a pipeline for every epoch stalls TensorFlow.

    A Python function hands over a whole epoch at a time: with a Python generator anywhere in the stream, the steps
    themselves would be slower.
    """

    def split_epoch(epoch: "tf.Tensor") -> "tf.data.Dataset":
        tensors = tf.numpy_function(draw_epoch, [epoch], [array.dtype for array in whole])
        shaped = tuple(tf.ensure_shape(tensor, array.shape) for tensor, array in zip(tensors, whole, strict=True))
        return tf.data.Dataset.from_tensor_slices(shaped).batch(batch_size, drop_remainder=True)

    return tf.data.Dataset.counter(first_epoch).flat_map(split_epoch)


def _iterate_batches(
    draw_epoch: Callable, batch_size: int, first_epoch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for epoch in count(first_epoch):
        images, targets = draw_epoch(epoch)
        for end in range(batch_size, len(images) + 1, batch_size):
            yield images[end - batch_size : end], targets[end - batch_size : end]


class _AfterEpoch(keras.callbacks.Callback):
    """Keeps the history, saves a checkpoint after every epoch and reports progress."""

    def __init__(self, config: RunConfig, parts: Parts, history: list[dict], work: Path):
        super().__init__()
        self.config = config
        self.parts = parts
        self.history = history
        self.work = work

    def on_train_begin(self, logs=None):
        if self.history:
            log.info("%s: continues after epoch %d", self.config.label, len(self.history))

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        values = {name: float(value) for name, value in logs.items()}
        if self.parts.validation is None:
            values |= measure_spread(self.model, self.parts.training)
        else:
            with averaged_weights(self.model):
                values |= measure_validation(self.model, self.parts.validation, self.config.batch_size)
        # Including validation, which is part of the cost of an epoch.
        seconds = round(time.perf_counter() - self.start, 3)
        self.history.append({"epoch": epoch + 1, **values, "seconds": seconds})
        selects = self.parts.validation is not None
        is_best = selects and selection.best_epoch(self.history) == len(self.history)
        _save_checkpoint(self.model, self.history, self.work, best=is_best)
        end = find_end(self.history, self.config)
        self.model.stop_training = bool(end)
        self._report(values, seconds)
        if end == "diverged":
            log.warning("%s: the loss of epoch %d is not a number; training ends", self.config.label, epoch + 1)

    def _report(self, values: dict[str, float], seconds: float) -> None:
        epochs_left = 0 if self.model.stop_training else self.config.epochs - len(self.history)
        measured = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in values.items())
        log.info(
            "%s: epoch %d of %d, %s; this run: %.0f min left",
            self.config.label,
            len(self.history),
            self.config.epochs,
            measured,
            epochs_left * seconds / 60,
        )


def _save_checkpoint(model: keras.Model, history: list[dict], work: Path, *, best: bool) -> None:
    """Save weights, optimizer and history as ``epoch-<n>``, whole or not at all; remove earlier checkpoints."""
    fresh = work / "fresh"
    last = find_checkpoint(work)
    best_before = last / BEST if last and (last / BEST).is_file() else None
    shutil.rmtree(fresh, ignore_errors=True)
    _refuse_full_disk(work, model, files=2 if best or best_before else 1)
    fresh.mkdir()
    model.save_weights(fresh / STATE)
    pd.DataFrame(history).to_csv(fresh / "history.csv", index=False)
    if best:
        with averaged_weights(model):
            model.save_weights(fresh / BEST)
    elif best_before:
        shutil.copyfile(best_before, fresh / BEST)
    # The checkpoint exists from this rename on; a run killed before it continues from the previous one.
    fresh.rename(work / f"epoch-{len(history):04d}")
    for old in sorted(work.glob("epoch-*"))[:-1]:
        shutil.rmtree(old)


def _refuse_full_disk(work: Path, model: keras.Model, files: int) -> None:
    """Raise OSError if ``files`` copies of the model's state do not fit on the disk.

    Without this check, HDF5 would crash the whole process when it runs out of space while writing.
    """
    variables = [*model.variables, *model.optimizer.variables]
    state_bytes = sum(math.prod(variable.shape) * FLOAT32_BYTES for variable in variables)
    wanted = files * state_bytes + SPARE_BYTES
    free = shutil.disk_usage(work).free
    if free < wanted:
        message = f"disk full: {free / 1e6:.1f} MB are free, {wanted / 1e6:.1f} MB are needed"
        raise OSError(errno.ENOSPC, message, str(work))


def _resume(model: keras.Model, config: RunConfig, store: Store) -> list[dict]:
    """Load the newest checkpoint and return its epochs; without one, continue where another run's training ended."""
    work = store.work(config)
    checkpoint = find_checkpoint(work)
    # Not looked for beside a checkpoint, because that reads the weights of finished runs.
    beginning = None if checkpoint else store.beginning(config)
    if beginning:
        fresh = work / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        for name in ("history.csv", STATE, BEST):
            if (beginning.folder / name).is_file():
                shutil.copyfile(beginning.folder / name, fresh / name)
        # The end of the earlier run becomes a checkpoint of this one.
        checkpoint = fresh.rename(work / f"epoch-{len(beginning.history):04d}")
    if checkpoint is None:
        return []
    try:
        model.load_weights(checkpoint / STATE)
        return pd.read_csv(checkpoint / "history.csv").to_dict("records")
    except (OSError, ValueError) as error:
        # A power failure can leave a file without its content.
        raise StudyError(
            f"{checkpoint}: cannot be read ({error}); expected weights and history: delete this folder, and the run "
            "starts again from its beginning"
        ) from error


def _describe_environment(threads: int | None) -> dict:
    backend = keras.backend.backend()
    return {
        "finished": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": backend,
        # Keras calls its backends by the names of their packages.
        "backend_version": __import__(backend).__version__,
        "numpy": version("numpy"),
        "processor": processor_name(),
        # Counted among all devices: asked only for GPUs, JAX fails if there are none.
        "gpus": sum(device.startswith("gpu") for device in keras.distribution.list_devices()),
        "cores": os.cpu_count(),
        "threads": (threads if ON_TENSORFLOW else None) or os.cpu_count(),
    }


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's model and widest vector instructions, e.g. "AMD EPYC, AVX-512".

    The vector width decides in which order numbers are added, so that other processors give other last bits. Where the
    model is not known, the machine's architecture is returned.

    Args:
        cpuinfo: Linux's description of the processor: one "name : value" per line, an empty line after each core.
    """
    facts = {}
    if cpuinfo.is_file():
        # Those of the first core, because all cores are alike.
        for line in cpuinfo.read_text(encoding="utf-8").partition("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            facts[name.strip()] = value.strip()
    if "model name" not in facts:
        return platform.machine()
    flags = facts.get("flags", "").split()
    vectors = [name for flag, name in VECTORS.items() if flag in flags]
    return ", ".join([facts["model name"], *vectors[:1]])


def _set_threads(threads: int | None) -> None:
    """Set the number of TensorFlow's threads, which is only possible before it has computed anything."""
    if threads is None or not ON_TENSORFLOW:
        return
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
