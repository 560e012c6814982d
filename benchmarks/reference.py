"""Contender "study's way": training as the study's public notebook does it, written anew as a reference.

Both PNG files are decoded and resized in every epoch, in a tf.data map without parallelism or cache. A batch is one
image (or the held-out network's own batch). Everything else is Keras' default: float32, XLA where there is a GPU, and
layers called one by one.
"""

from pathlib import Path

import keras
import tensorflow as tf

from benchmarks.package import prepare_keras, start_from
from benchmarks.race import Training
from busi.config import RunConfig
from busi.dataset import catalog
from busi.dataset.catalog import Catalog
from busi.lab.export import copy_plain
from busi.model import losses, optimizers, unet


def prepare(config: RunConfig, data_dir: Path, weights: Path) -> Training:
    """Prepare training ``config`` on the images in ``data_dir``, starting from the file ``weights``."""
    # As the package's, but of Keras' own layers.
    model = copy_plain(unet.build(config))
    start_from(model, weights)
    loss = losses.make_loss(config)
    model.compile(optimizers.make_optimizer(config), loss, metrics=["accuracy", keras.metrics.AUC(from_logits=True)])
    images = catalog.read_catalog(data_dir, expected=None)
    facts = {"parameters": model.count_params()}
    return prepare_keras(model, stream_batches(images, config), config.batch_size, facts)


def stream_batches(images: Catalog, config: RunConfig) -> tf.data.Dataset:
    """Return whole batches without end, in the catalog's order, of images' first masks, resized as "squash" does.

    Returns:
        Pairs of images (b, s, s, 1) and targets (b, o, o, 2), float32.
    """

    def decode_pair(image: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        lesion = _decode(mask, config.output_size)
        background = 1 - lesion if config.second_channel == "complement" else tf.math.floormod(lesion + 1, 2)
        targets = tf.concat([lesion, background], axis=-1)
        return _decode(image, config.image_size), targets

    first_masks = [masks[0].file for masks in images.lesions.masks]
    files = list(images.lesions.image), first_masks
    pairs = tf.data.Dataset.from_tensor_slices(files).map(decode_pair)
    # The package leaves out what remains after the last whole batch, too.
    return pairs.batch(config.batch_size, drop_remainder=True).repeat()


def _decode(file: tf.Tensor, size: int) -> tf.Tensor:
    pixels = tf.io.decode_png(tf.io.read_file(file), channels=1)
    scaled = tf.image.convert_image_dtype(pixels, tf.float32)
    return tf.image.resize(scaled, (size, size))
