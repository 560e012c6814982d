"""The study's way of training, written anew as a yardstick: what the public notebook does, and nothing it does not.

Both PNGs are decoded and resized in every epoch, in a tf.data map without parallelism or cache; one image a batch (the
held-out network: its own batches); Keras' defaults, so float32, and XLA where there is a GPU; layers called one by one.
"""

from pathlib import Path

import keras
import tensorflow as tf
from keras import layers

from busi.benchmark.package import STEPS, Steps, start_from
from busi.benchmark.race import Referee
from busi.config import RunConfig
from busi.dataset import catalog
from busi.dataset.catalog import Catalog
from busi.model import losses, optimizers


def run(referee: Referee, config: RunConfig, data_dir: Path, weights: Path) -> None:
    """Train ``config`` on the images in ``data_dir`` from ``weights``, as `busi.benchmark.package.run`."""
    model = network(config)
    start_from(model, weights)
    model.compile(
        optimizers.get(config),
        losses.get(config),
        metrics=["accuracy", keras.metrics.AUC()],
    )
    stream = batches(catalog.read(data_dir, expected=None), config)
    steps = Steps(referee, config.batch_size, parameters=model.count_params())
    model.fit(stream, steps_per_epoch=STEPS, callbacks=[steps], shuffle=False, verbose=0)


def batches(data: Catalog, config: RunConfig) -> tf.data.Dataset:
    """Images (b, s, s, 1) and targets (b, o, o, 2), float32, without end, in the catalog's order; whole batches only.

    Args:
        data: The images; of their masks the first is read.
        config: Its sizes, `second_channel` and `batch_size` count; resized as by "squash".
    """

    def decoded(image: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        lesion = _resized(mask, config.output_size)
        background = 1 - lesion if config.second_channel == "complement" else tf.math.floormod(lesion + 1, 2)
        return _resized(image, config.image_size), tf.concat([lesion, background], axis=-1)

    files = list(data.lesions.image), [masks[0] for masks in data.lesions.masks]
    return tf.data.Dataset.from_tensor_slices(files).map(decoded).batch(config.batch_size, drop_remainder=True).repeat()


def _resized(file: tf.Tensor, size: int) -> tf.Tensor:
    pixels = tf.io.decode_png(tf.io.read_file(file), channels=1)
    return tf.image.resize(tf.image.convert_image_dtype(pixels, tf.float32), (size, size))


def network(config: RunConfig) -> keras.Model:
    """The baseline's network, layer by layer: the same as `busi.model.unet.build` makes of ``config``."""
    f = config.base_filters
    image = x = keras.Input((config.image_size, config.image_size, 1))
    skips = []
    for filters in (f, 2 * f, 4 * f, 8 * f):
        x = _pair(x, filters, filters, config)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = _pair(x, 16 * f, 8 * f, config)
    for filters, narrowed in ((8 * f, 4 * f), (4 * f, 2 * f), (2 * f, f), (f, f)):
        first = filters == 8 * f
        x = layers.UpSampling2D()(x) if first else layers.Conv2DTranspose(filters, 2, strides=2)(x)
        skip = skips.pop()
        excess = skip.shape[1] - x.shape[1]
        skip = layers.Cropping2D(((excess // 2, excess - excess // 2),) * 2)(skip)
        x = _pair(layers.Concatenate()([skip, x]), filters, narrowed, config)
    return keras.Model(image, layers.Conv2D(2, 1, activation="softmax")(x))


def _pair(x, first: int, second: int, config: RunConfig):
    for filters in (first, second):
        x = layers.Conv2D(filters, 3, padding=config.padding, activation="relu")(x)
    return x
