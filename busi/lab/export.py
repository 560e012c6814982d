"""Export of a trained network: a file that Keras or an ONNX runtime can load, and a card that describes it."""

from pathlib import Path

import keras
from keras import layers, ops

from busi.config import StudyError
from busi.dataset.catalog import read_named
from busi.dataset.preprocessing import scale
from busi.lab import networks
from busi.model import unet
from busi.report.layout import render_template
from busi.runs import Run
from busi.scoring.ruler import SCORES
from busi.scoring.statistics import score_interval

FORMATS = (".keras", ".onnx")
"""Endings of the files that can be written: Keras' own format, and ONNX for other software."""


def export_network(run: Run, out: Path) -> Path:
    """Write a finished run's network as a file in one of `FORMATS`, and its model card beside it, ``<file>.md``.

    The model takes images in [0, 1] at the network's size and returns the probability of lesion. Scaling, softmax and,
    if the run uses it, the mean with the prediction for the mirrored image are part of it. It is made of Keras' own
    layers, so that it loads in safe mode wherever Keras is installed.

    Returns:
        ``out``.

    Raises:
        StudyError: One of the two files exists, or ``out`` has another ending.
    """
    if out.suffix not in FORMATS:
        raise StudyError(f"{out}: ends in {out.suffix!r}; expected {' or '.join(FORMATS)}")
    # The ending stays in the card's name, so that both formats of a network can be side by side.
    card = out.with_name(f"{out.name}.md")
    for file in (out, card):
        if file.exists():
            raise StudyError(f"{file}: exists; nothing is overwritten: give another name")
    out.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when it is complete, so that a file that exists is finished.
    unfinished = out.with_name(f"unfinished-{out.name}")
    model = build_plain_model(run)
    if out.suffix == ".onnx":
        # Keras exports only a model that has been called.
        model(ops.zeros((1, *model.input_shape[1:])))
        model.export(unfinished, format="onnx", verbose=False)
    else:
        model.save(unfinished)
    unfinished.rename(out)
    card.write_text(_describe(run, out), encoding="utf-8")
    return out


def build_plain_model(run: Run) -> keras.Model:
    """Return a run's network made of Keras' own layers, from images in [0, 1] to the probability of lesion."""
    network = networks.load_model(run)
    plain = copy_plain(network)
    image = keras.Input(network.input_shape[1:], name="image")
    scaled = scale(image, run.config.preprocessing, run.scaling, ops)
    probability = _find_probability(plain(scaled))
    if run.config.flip_test:
        mirrored = _find_probability(plain(ops.flip(scaled, axis=2)))
        probability = (probability + ops.flip(mirrored, axis=2)) / 2
    return keras.Model(image, probability, name="busi")


def _find_probability(logits):
    """Return the probability of lesion: the softmax of two channels is the sigmoid of their difference."""
    return ops.sigmoid(ops.take(logits, 0, axis=-1) - ops.take(logits, 1, axis=-1))


def copy_plain(network: keras.Model) -> keras.Model:
    """Return a copy of a network of `busi.model.unet`, weights included, that is made of Keras' own layers."""
    plain = keras.models.clone_model(network, clone_function=_make_plain)
    plain.set_weights(network.get_weights())
    return plain


def _make_plain(layer: keras.Layer) -> keras.Layer:
    """Return Keras' own layer for one of the study's, which differ in the gradient alone."""
    if isinstance(layer, unet.Conv2D):
        return layers.Conv2D.from_config(layer.get_config())
    if isinstance(layer, unet.Conv2DTranspose):
        return layers.Conv2DTranspose.from_config(layer.get_config())
    if isinstance(layer, unet.CenterCrop):
        excess = layer.input.shape[1] - layer.size
        sides = (excess // 2, excess - excess // 2)
        return layers.Cropping2D((sides, sides), name=layer.name, dtype=layer.dtype_policy)
    return layer.from_config(layer.get_config())


def _describe(run: Run, file: Path) -> str:
    """Return the model card, Markdown, with the scores of the images that the run held out."""
    # A run that has not been scored still gets a card.
    scores = {}
    images = 0
    recorded = next(run.folder.glob("scores-*/images.csv"), None)
    if recorded:
        lesions = read_named(recorded).dropna(subset="dice")
        scores = {score: score_interval(lesions, score) for score in SCORES}
        images = len(lesions)
    return render_template("model-card.md.j2", run=run, config=run.config, file=file, scores=scores, images=images)
