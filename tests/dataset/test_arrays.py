"""Images, targets and the way back: by hand, against TensorFlow's resizing, and against numbers of the release."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import minimum_filter

from busi.config import RunConfig
from busi.dataset import arrays, catalog, decode
from busi.dataset.catalog import Catalog


@pytest.fixture(scope="module")
def phantoms(phantom_dir, inside_study):
    return catalog.read_catalog(phantom_dir, expected=None)


def small(**settings):
    return RunConfig(image_size=204, base_filters=2, epochs=1, **settings)


# Resizing


def test_bilinear_by_hand():
    """New pixel centres lie a quarter and three quarters of the way between old ones; the edge is repeated outside."""
    weights = np.array([0, 0.25, 0.75, 1])  # of the second pixel
    pixels = np.array([[0.0, 0.4], [0.8, 0.2]])
    rows = pixels[0] + weights[:, None] * (pixels[1] - pixels[0])
    expected = rows[:, :1] + weights * (rows[:, 1:] - rows[:, :1])
    assert expected[0].tolist() == pytest.approx([0, 0.1, 0.3, 0.4])
    assert expected[1].tolist() == pytest.approx([0.2, 0.2375, 0.3125, 0.35])
    resized = arrays.resize_bilinear(pixels, 4)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, expected, atol=1e-6)


def test_shrinking_does_not_average():
    """Without antialiasing every third pixel of a row of nine is kept and its neighbours are ignored."""
    row = np.array([9, 1, 9, 9, 2, 9, 9, 3, 9.0])
    np.testing.assert_allclose(arrays.resize_bilinear(np.tile(row, (9, 1)), 3), [[1, 2, 3]] * 3, atol=1e-6)


@pytest.mark.parametrize("size", [20, 116, 300])
def test_resizing_agrees_with_tensorflow(phantoms, size):
    """The tolerance is the rounding of TensorFlow's float32 coordinates: 600 pixels times 2**-24, twice."""
    import tensorflow as tf

    for row in phantoms.lesions.iloc[::3].itertuples():
        for pixels in (
            catalog.read_grey(row.image) / np.float32(255),
            decode.read_mask(row.masks[0]).astype(np.float32),
        ):
            expected = tf.image.resize(pixels[..., None], (size, size)).numpy()[..., 0]
            np.testing.assert_allclose(arrays.resize_bilinear(pixels, size), expected, atol=1e-4)


def test_interpolation_leaves_no_rounding_errors_next_to_zero_and_one(phantoms):
    """The mirror would turn the background of such a pixel from 0 into 2."""
    targets = arrays.published_arrays(phantoms, RunConfig()).targets[..., 0]
    soft = targets[(targets > 0) & (targets < 1)]
    assert soft.size > 0
    assert soft.min() > 1e-6
    assert soft.max() < 1 - 1e-6


# Targets


@pytest.mark.parametrize(("second_channel", "background"), [("mirror", [1, 1.25, 0]), ("complement", [1, 0.75, 0])])
def test_second_channel_by_hand(second_channel, background):
    lesions = np.array([0, 0.25, 1], np.float32)
    targets = arrays.two_channels(lesions, second_channel)
    assert targets.dtype == np.float32
    assert targets.tolist() == [[0, background[0]], [0.25, background[1]], [1, background[2]]]


@pytest.fixture
def drawn(tmp_path):
    """Write one malignant image of 480 x 480 pixels; its first mask is a small square, its second a large one."""
    squares = np.zeros((2, 480, 480), bool)
    squares[0, 0:48, 0:48] = True
    squares[1, 192:288, 288:384] = True
    files = [tmp_path / f"m (1)_mask{end}.png" for end in ("", "_1")]
    for file, square in zip(files, squares, strict=True):
        Image.fromarray(square).save(file)
    image = tmp_path / "m (1).png"
    Image.fromarray(np.full((480, 480), 51, np.uint8)).save(image)
    masks = [str(file) for file in files]
    table = pd.DataFrame([{"image_class": "malignant", "name": "m (1)", "image": str(image), "masks": masks}])
    return Catalog(table, f"drawn in {tmp_path}")


def bounds(lesion):
    """Return the first and last row, and the first and last column, of the pixels at least half inside."""
    rows, columns = np.nonzero(lesion >= 0.5)
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_first_or_all_masks(drawn):
    first = arrays.published_arrays(drawn, RunConfig()).targets[0, ..., 0]
    both = arrays.published_arrays(drawn, RunConfig(masks="all")).targets[0, ..., 0]
    # The small square's 48 of 480 pixels are 11.6 of 116, the large one's begin at 46.4 and 69.6.
    assert bounds(first) == (0, 11, 0, 11)
    np.testing.assert_array_equal(both[:40, :60], first[:40, :60])
    assert not first[40:].any()
    assert both[40:, 60:].sum() == pytest.approx(23.2**2, rel=0.03)


def test_squeezed_shows_the_whole_mask_and_aligned_the_part_that_the_output_covers(drawn):
    # 480 pixels on 300: the large square takes rows 120 to 179 and columns 180 to 239 of the input, the output
    # covers 92 to 207 of it: rows 28 to 87, columns 88 to its edge. The small square lies outside.
    aligned = arrays.published_arrays(drawn, RunConfig(masks="all", target="aligned")).targets[0, ..., 0]
    assert bounds(aligned) == (28, 87, 88, 115)
    assert aligned.sum() == 60 * 28
    # 480 pixels on 116: rows 192 to 287 are 46.4 to 69.6, columns 288 to 383 are 69.6 to 92.8.
    squeezed = arrays.published_arrays(drawn, RunConfig(masks="all")).targets[0, ..., 0]
    assert bounds(squeezed) == (0, 69, 0, 92)
    assert bounds(squeezed[20:]) == (46 - 20, 69 - 20, 70, 92)


def test_images_are_grey_over_255(drawn):
    np.testing.assert_array_equal(
        arrays.published_arrays(drawn, small()).images, np.full((1, 204, 204, 1), 0.2, np.float32)
    )


# Complete arrays


@pytest.mark.parametrize("second_channel", ["mirror", "complement"])
@pytest.mark.parametrize("target", ["squeezed", "aligned"])
def test_shapes_types_and_ranges(phantoms, second_channel, target):
    made = arrays.published_arrays(phantoms, small(second_channel=second_channel, target=target))
    assert made.images.shape == (10, 204, 204, 1)  # six benign, four malignant; two normals left out
    assert made.targets.shape == (10, 20, 20, 2)
    assert made.images.dtype == made.targets.dtype == np.float32
    assert 0 <= made.images.min() < 0.1 < 0.9 < made.images.max() <= 1
    lesion, background = made.targets[..., 0], made.targets[..., 1]
    assert (lesion.min(), lesion.max()) == (0, 1)
    hard = (lesion == 0) | (lesion == 1)
    np.testing.assert_array_equal(background[hard], 1 - lesion[hard])
    assert not hard.all()
    above_one = 2 * lesion if second_channel == "mirror" else 0 * lesion
    np.testing.assert_allclose(made.targets.sum(axis=-1)[~hard], (1 + above_one)[~hard], atol=1e-6)


def test_order_and_names_are_the_catalogs(phantoms):
    made = arrays.published_arrays(phantoms, small())
    assert made.names.tolist() == phantoms.lesions.name.tolist()
    assert arrays.all_arrays(phantoms, heldout()).names.tolist() == phantoms.table.name.tolist()
    images = made.images
    for k in (0, 5, 6, 9):
        file = phantoms.lesions.image[k]
        np.testing.assert_array_equal(
            images[k, ..., 0], arrays.resize_bilinear(catalog.read_grey(file) / np.float32(255), 204)
        )


# Letterboxed: aspect ratio kept


def heldout(image_size=32, **settings):
    return RunConfig(protocol="heldout", image_size=image_size, **settings)


@pytest.mark.parametrize(
    "height, width, size, rows, columns",
    [
        (60, 30, 32, (0, 32), (8, 24)),  # 30 * 32 / 60 = 16, eight free on either side
        (30, 60, 32, (8, 24), (0, 32)),
        (60, 60, 32, (0, 32), (0, 32)),
        (500, 333, 128, (0, 128), (21, 106)),  # 333 * 128 / 500 = 85.2, of the 43 free ones 21 before
        (16, 8, 32, (0, 32), (8, 24)),  # smaller than the input
        (1000, 3, 32, (0, 32), (15, 16)),  # at least one pixel
    ],
)
def test_the_longer_side_fills_the_letterbox(height, width, size, rows, columns):
    assert arrays.letterbox_area(height, width, size) == (slice(*rows), slice(*columns))


@pytest.mark.parametrize("shape", [(60, 30), (47, 90), (10, 20)])
def test_the_padding_never_mixes_with_the_image(shape):
    """A white image stays white up to its border, and a black output stays black whatever surrounds it."""
    area = arrays.letterbox_area(*shape, 32)
    letterboxed = arrays.resize_image(np.ones(shape), 32, "letterbox")
    expected = np.zeros((32, 32), np.float32)
    expected[area] = 1
    np.testing.assert_array_equal(letterboxed, expected)
    np.testing.assert_array_equal(arrays.restore(letterboxed, *shape, heldout()), np.ones(shape))
    np.testing.assert_array_equal(arrays.restore(1 - letterboxed, *shape, heldout()), np.zeros(shape))


def test_shrinking_in_a_letterbox_averages():
    """A chequerboard of pixels becomes grey; the published resizing picks single pixels of it."""
    chequered = np.indices((96, 96)).sum(axis=0) % 2
    assert np.abs(arrays.resize_image(chequered.astype(float), 32, "letterbox") - 0.5).max() < 0.05
    assert set(np.unique(arrays.resize_image(chequered.astype(float), 32, "squash"))) == {0, 1}


def test_a_square_by_hand_is_resized_and_restored():
    """60 x 30 on 32: rows 20 to 39 become 10.7 to 21.3, columns 10 to 19 become 8 + 5.3 to 8 + 10.7."""
    inside = np.zeros((60, 30), bool)
    inside[20:40, 10:20] = True
    lesion = arrays.lesion_channel(inside, heldout())
    assert lesion.dtype == np.float32
    assert bounds(lesion) == (11, 20, 13, 18)  # at least half inside: 10 and 21 are by a third, 13 and 18 by two thirds
    assert lesion.sum() == 10 * 6
    back = arrays.restore(lesion, 60, 30, heldout())
    assert (back.shape, back.dtype) == ((60, 30), np.float32)
    assert np.abs(np.subtract(bounds(back), (20, 39, 10, 19))).max() <= 1


@pytest.mark.parametrize("shape", [(240, 180), (130, 300)])
@pytest.mark.parametrize("target", ["aligned", "squeezed"])
@pytest.mark.parametrize("padding, size", [("valid", 316), ("same", 128)])
@pytest.mark.parametrize("resize", ["squash", "letterbox"])
def test_restoring_is_the_inverse(shape, target, padding, size, resize):
    """A slope down and a slope across come back with every pixel in its place, to a tenth of a pixel.

    A resized slope is a slope again, except at the edges, which are repeated: these are left out.
    """
    config = RunConfig(image_size=size, padding=padding, target=target, resize=resize)
    height, width = shape
    slopes = np.indices(shape) / np.reshape(shape, (2, 1, 1))
    start = (size - config.output_size) // 2 if target == "aligned" else 0
    covered = slice(start, start + config.output_size)
    whole = size if target == "aligned" else config.output_size
    outputs = [arrays.resize_image(slope, whole, resize)[covered, covered] for slope in slopes]
    back = [arrays.restore(output, height, width, config) for output in outputs]
    reached = arrays.restore(np.ones((config.output_size, config.output_size)), height, width, config)
    inner = np.zeros(shape, bool)
    inner[10:-10, 10:-10] = True
    inner &= minimum_filter(reached, 9) > 0.999
    assert inner.mean() > (0.1 if (target, padding) == ("aligned", "valid") else 0.7)
    for side, slope, restored in zip(shape, slopes, back, strict=True):
        assert np.abs(restored - slope)[inner].max() * side < 0.1


def test_where_an_unpadded_output_does_not_reach_there_is_no_lesion():
    """An output of 132 pixels covers the middle of an input of 316: rows and columns 92 to 223."""
    config = RunConfig(image_size=316, target="aligned")
    restored = arrays.restore(np.ones((132, 132)), 316, 316, config)
    expected = np.zeros((316, 316))
    expected[92:224, 92:224] = 1
    np.testing.assert_array_equal(restored, expected)


def test_heldout_targets_are_one_hot_pairs_of_all_images(phantoms):
    made = arrays.all_arrays(phantoms, heldout())
    assert (made.images.shape, made.targets.shape) == ((12, 32, 32, 1), (12, 32, 32, 2))
    assert made.images.dtype == made.targets.dtype == np.float32
    assert set(np.unique(made.targets)) == {0, 1}
    np.testing.assert_array_equal(made.targets.sum(axis=-1), 1)
    has_lesion = made.targets[..., 0].any(axis=(1, 2))
    np.testing.assert_array_equal(has_lesion, phantoms.table.image_class != "normal")


def test_heldout_images_are_the_catalogs_with_all_masks(phantoms):
    """Image 2 has two masks. Padding is black in the image and background in the target."""
    made = arrays.all_arrays(phantoms, heldout())
    padding = 0
    for k in (0, 4, 11):
        row = phantoms.table.loc[k]
        rows, columns = arrays.letterbox_area(row.height, row.width, 32)
        grey = catalog.read_grey(row.image) / np.float32(255)
        np.testing.assert_array_equal(made.images[k, ..., 0], arrays.resize_image(grey, 32, "letterbox"))
        outside = np.ones((32, 32), bool)
        outside[rows, columns] = False
        padding += outside.sum()
        assert not made.images[k][outside].any() and not made.targets[k][outside][:, 0].any()
    assert padding > 100
    second = phantoms.table.index[phantoms.table.name == "benign (2)"][0]
    both, first = (
        arrays.all_arrays(phantoms, heldout(masks=masks)).targets[second, ..., 0] for masks in ("all", "first")
    )
    assert len(phantoms.table.masks[second]) == 2
    assert (both >= first).all() and both.sum() > first.sum() > 0


def test_selected_rows_keep_their_names(phantoms):
    made = arrays.all_arrays(phantoms, heldout())
    some = made[np.array([7, 3])]
    assert (len(made), len(some)) == (12, 2)
    assert some.names.tolist() == [phantoms.table.name[7], phantoms.table.name[3]]
    np.testing.assert_array_equal(some.images[1], made.images[3])
    np.testing.assert_array_equal(some.targets[0], made.targets[7])


def numbered(count):
    """Return arrays whose names, images and targets all say the row."""
    rows = np.arange(count, dtype=np.float32)
    images = np.tile(rows[:, None, None, None], (1, 2, 2, 1))
    return arrays.Arrays(np.array([f"image {row}" for row in range(count)]), images, 100 + images)


def test_shuffling_keeps_names_images_and_targets_together():
    shuffled = numbered(20).shuffled(3)
    rows = shuffled.images[:, 0, 0, 0].astype(int)
    assert sorted(rows) == list(range(20))
    assert rows.tolist() != list(range(20))
    assert shuffled.names.tolist() == [f"image {row}" for row in rows]
    np.testing.assert_array_equal(shuffled.targets, 100 + shuffled.images)


def test_the_seed_decides_the_order():
    assert numbered(20).shuffled(3).names.tolist() == numbered(20).shuffled(3).names.tolist()
    assert numbered(20).shuffled(3).names.tolist() != numbered(20).shuffled(4).names.tolist()


def test_arrays_are_decoded_once_for_each_setting_that_changes_them(phantoms, monkeypatch, here):
    decoded = []

    def read_grey(file):
        decoded.append(file)
        return catalog.read_grey(file)

    monkeypatch.setattr(arrays, "read_grey", read_grey)
    first = arrays.all_arrays(phantoms, heldout())
    again = arrays.all_arrays(phantoms, heldout(loss="dice", seed=3))
    assert decoded == phantoms.table.image.tolist()
    assert again.names.tolist() == first.names.tolist()
    np.testing.assert_array_equal(again.images, first.images)
    np.testing.assert_array_equal(again.targets, first.targets)
    arrays.all_arrays(phantoms, heldout(masks="first"))
    assert len(decoded) == 2 * 12


def test_other_rows_and_other_data_are_not_taken_from_the_cache(phantoms):
    """Lesion images alone differ in number, data with another pixel in their fingerprint."""
    config = heldout()
    assert len(arrays.all_arrays(phantoms, config)) == 12
    assert len(arrays.published_arrays(phantoms, config)) == 10
    reversed_table = phantoms.table[::-1].reset_index(drop=True)
    other = arrays.all_arrays(Catalog(reversed_table, "reversed"), config)
    np.testing.assert_array_equal(other.images[0], arrays.all_arrays(phantoms, config).images[-1])


# The release under the published protocol


@pytest.fixture(scope="module")
def release(busi_dir, inside_study):
    return arrays.published_arrays(catalog.read_catalog(busi_dir), RunConfig())


def test_published_targets_of_the_release(release):
    assert release.images.shape == (647, 300, 300, 1)
    assert release.targets.shape == (647, 116, 116, 2)
    lesion = release.targets[..., 0].astype(np.float64)
    assert ((lesion > 0) & (lesion < 1)).mean() == pytest.approx(0.0026, abs=0.00005)
    assert lesion.mean() == pytest.approx(0.0930, abs=0.00005)
    assert (lesion >= 0.5).mean() == pytest.approx(0.0930, abs=0.00005)
    assert release.targets.sum(axis=-1).max() == pytest.approx(3.0, abs=0.0005)
