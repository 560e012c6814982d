"""Export of a trained network: a file that Keras alone can read, and a card that says what it is."""

from pathlib import Path

import keras
import pandas as pd
from keras import layers, ops

from busi.config import StudyError
from busi.dataset.preprocessing import Scaling
from busi.lab import networks
from busi.model import unet
from busi.runs import Run
from busi.scoring.ruler import SCORES
from busi.scoring.statistics import mean_interval

CARD = """\
# {label}

U-Net that outlines breast lesions in ultrasound images. **Not for clinical use**: it is the result of a study of
methods, checked on research data alone.

## Use

```python
model = keras.saving.load_model("{file}")  # Keras' safe mode; needs Keras alone, nothing of this study
probability = model(images)  # images: float32 (n, {size}, {size}, 1) in [0, 1]
```

The answer is the probability of lesion, float32 (n, {output}, {output}); from {threshold:.2f} on, a pixel counts as
lesion. Grey images are brought to {size} x {size} by {resize}. Their scaling is part of the model.

## Training

- Data: {images} images, fingerprint {fingerprint}; a data set with this fingerprint holds the same pixels.
- Protocol: {protocol}, {epochs} epochs; configuration below.
- Size: {parameters:,} parameters, arithmetic in {precision}.

## Scores

{scores}

## Limits

- Trained on images of one data set: on those of another hospital, machine or population, expect other scores.
- BUSI, where the network was trained on it, publishes no patients: near-duplicates stand in for them in its splits.
- It marks lesions and does not tell benign from malignant. Training held no image without a lesion.

## Configuration

```json
{config}
```
"""

RESIZE = {
    "letterbox": "making the longer side fit, bilinearly with antialiasing, and centring the image on black",
    "squash": "resizing both sides, bilinearly without antialiasing",
}

# Images without contrast are divided by this, as in busi.dataset.preprocessing.
_SMALLEST = 1e-6

_EACH_IMAGE = {"axis": (1, 2, 3), "keepdims": True}


def export_network(run: Run, out: Path) -> Path:
    """Write a network as a Keras file, and its model card beside it, ``<name>.md``.

    The model takes images in [0, 1] at the network's size and returns the probability of lesion: scaling and softmax
    are part of it. It is made of Keras' own layers, so that it loads in safe mode wherever Keras is installed.

    Args:
        run: A finished run.
        out: The file, ending in ``.keras``.

    Raises:
        StudyError: A file exists, or ``out`` has another ending.
    """
    if out.suffix != ".keras":
        raise StudyError(f"{out}: ends in {out.suffix!r}; expected .keras, Keras' own format")
    card = out.with_suffix(".md")
    for file in (out, card):
        if file.exists():
            raise StudyError(f"{file}: exists; nothing is overwritten: give another name")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f"unfinished-{out.name}")
    build_plain_model(run).save(unfinished)
    unfinished.rename(out)
    card.write_text(_describe(run, out.name), encoding="utf-8")
    return out


def build_plain_model(run: Run) -> keras.Model:
    """Return a run's network made of Keras' own layers, from images in [0, 1] to the probability of lesion."""
    network = networks.load_model(run)
    plain = copy_plain(network)
    image = keras.Input(network.input_shape[1:], name="image")
    both = plain(scale(image, run.config.preprocessing, run.scaling))
    return keras.Model(image, ops.take(both, 0, axis=-1), name="busi")


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


def scale(image, reading: str, scaling: Scaling):
    """Scale as `busi.dataset.preprocessing.scale`, in operations that a Keras model can hold."""
    if reading == "none":
        return image
    if reading == "code":
        return image / 255
    if reading == "text":
        deviation = ops.std(image, **_EACH_IMAGE)
        return (image - ops.mean(image, **_EACH_IMAGE)) / ops.maximum(deviation, _SMALLEST)
    lowest = ops.min(image, **_EACH_IMAGE)
    contrast = ops.max(image, **_EACH_IMAGE) - lowest
    normalized = (image - lowest) / ops.maximum(contrast, _SMALLEST)
    return (normalized - scaling.mean) / scaling.deviation


def _describe(run: Run, file: str) -> str:
    """Return the model card, Markdown."""
    config = run.config
    return CARD.format(
        label=config.label,
        file=file,
        size=config.image_size,
        output=config.output_size,
        threshold=run.threshold,
        resize=RESIZE[config.resize],
        images=run.outcome["images"],
        fingerprint=run.stored["fingerprint"],
        protocol=config.protocol,
        epochs=len(run.history),
        parameters=run.outcome["parameters"],
        precision=config.precision,
        scores=_list_scores(run),
        config=config.model_dump_json(indent=2),
    )


def _list_scores(run: Run) -> str:
    """Return the scores of the images that the run held out, with 95 % intervals, as a Markdown table."""
    file = next(run.folder.glob("scores-*/images.csv"), None)
    if file is None:
        return "None recorded: no image was held out from training, or `busi score` has not scored those that were."
    lesions = pd.read_csv(file).dropna(subset="dice")
    lines = [
        f"Means over the {len(lesions)} lesion images that this network was not trained on (one fold of five), with "
        "95 % intervals that resample near-duplicates together; hd95 in pixels.",
        "",
        "| score | mean | 95 % interval |",
        "|---|---|---|",
    ]
    for score in SCORES:
        mean, low, high = mean_interval(lesions[score], lesions.group)
        lines.append(f"| {score} | {mean:.4f} | {low:.4f} to {high:.4f} |")
    return "\n".join(lines)
