"""Pixels of images and masks: modes, depths, encodings and sizes, each against numbers worked out by hand."""

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from busi.dataset import decode
from busi.dataset.decode import DataError, Mask

INSIDE = np.zeros((6, 8), bool)
INSIDE[1:3, 2:5] = True


def save(path, pixels, **options):
    Image.fromarray(np.asarray(pixels)).save(path, **options)
    return path


# Images


def test_colour_becomes_grey_by_luma(tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (10, 200, 60)]
    file = save(tmp_path / "colour.png", np.array([colours], np.uint8))
    # 0.299 R + 0.587 G + 0.114 B: 76.2, 149.7, 29.1, 255, 127.2
    assert decode.read_grey(file).tolist() == [[76, 150, 29, 255, 127]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_to_their_full_range(tmp_path, suffix):
    file = save(tmp_path / f"deep.{suffix}", np.array([[0, 256, 25700, 32896, 65535]], np.uint16))
    assert decode.read_grey(file).tolist() == [[0, 1, 100, 128, 255]]


def test_a_palette_is_looked_up(tmp_path):
    """Its indices say nothing about brightness."""
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([200, 200, 200, 7, 7, 7, 90, 90, 90])
    image.save(tmp_path / "palette.png")
    assert decode.read_grey(tmp_path / "palette.png").tolist() == [[200, 7, 90]]


def test_opaque_alpha_is_dropped(tmp_path):
    pixels = np.full((2, 3, 4), 255, np.uint8)
    pixels[..., :3] = [[[10], [20], [30]], [[40], [50], [60]]]
    file = save(tmp_path / "alpha.png", pixels)
    assert decode.read_grey(file).tolist() == [[10, 20, 30], [40, 50, 60]]


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [[10, 20, 30], [40, 50, 60]]),
        (3, [[60, 50, 40], [30, 20, 10]]),  # half a turn
        (6, [[40, 10], [50, 20], [60, 30]]),  # a quarter, clockwise
    ],
)
def test_images_and_masks_are_turned_as_viewers_turn_them(tmp_path, orientation, expected):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
    assert decode.read_grey(save(tmp_path / "image.png", pixels, exif=exif)).tolist() == expected
    mask = save(tmp_path / "mask.png", (pixels >= 50) * np.uint8(255), exif=exif)
    np.testing.assert_array_equal(decode.read_mask(mask), np.array(expected) >= 50)


def test_transparent_pixels_are_refused_in_every_mode(tmp_path):
    """What a file holds behind them is not what anybody has seen."""
    pixels = np.full((2, 3, 2), 255, np.uint8)
    pixels[0, 0, 1] = 254
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    palette.info["transparency"] = bytes([0, 255, 255])
    palette.save(tmp_path / "palette.png")
    for file in (save(tmp_path / "grey.png", pixels), tmp_path / "palette.png"):
        for read in (decode.read_grey, decode.read_mask):
            with pytest.raises(DataError, match=f"{file.name}: transparent pixels; expected opaque ones"):
                read(file)


def test_an_intact_file_that_pillow_gives_up_on_is_refused_by_name(tmp_path):
    """Its text would fill two megabytes, more than Pillow unpacks."""
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 2**21, zip=True)
    file = save(tmp_path / "wordy.png", np.zeros((6, 8), np.uint8), pnginfo=text)
    with pytest.raises(DataError, match=r"wordy\.png: not a readable image \(Decompressed data too large"):
        decode.read_grey(file)


@pytest.mark.parametrize("suffix", ["tif", "bmp"])
def test_any_damage_is_refused_or_harmless(tmp_path, suffix):
    """Three random bytes are changed, two hundred times."""
    generator = np.random.default_rng(0)
    whole = save(tmp_path / f"whole.{suffix}", generator.integers(0, 256, (6, 8), np.uint8)).read_bytes()
    file = tmp_path / f"damaged.{suffix}"
    refused = 0
    for _ in range(200):
        content = np.frombuffer(whole, np.uint8).copy()
        content[generator.integers(0, len(content), 3)] = generator.integers(0, 256, 3)
        file.write_bytes(content.tobytes())
        try:
            decode.read_grey(file)
        except DataError as error:
            refused += str(error).startswith(f"{file}: ")
    assert refused > 10


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff"])
def test_lossless_formats_hold_the_same_pixels(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8), np.uint8)
    file = save(tmp_path / f"image.{suffix}", pixels)
    np.testing.assert_array_equal(decode.read_grey(file), pixels)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "jpg"])
def test_an_image_cut_off_at_any_byte_is_refused_or_complete(tmp_path, suffix):
    """A transfer may stop at any byte; the last of a file (checksums, a closing mark) may hold no pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8), np.uint8)
    whole = save(tmp_path / f"whole.{suffix}", pixels)
    expected, content = decode.read_grey(whole), whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    refused = 0
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        try:
            np.testing.assert_array_equal(decode.read_grey(cut), expected)
        except DataError as error:
            assert str(error).startswith(f"{cut}: not a readable image")
            refused += 1
    assert refused > len(content) / 2


# Masks


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_masks_read_the_same_in_every_mode(tmp_path, mode):
    file = tmp_path / "mask.png"
    Image.fromarray(INSIDE).convert(mode).save(file)
    with Image.open(file) as stored:
        assert stored.mode == mode
    mask = decode.decode_mask(file)
    assert (mask.inside.dtype, mask.encoding, mask.notes) == (bool, "black and white", ())
    np.testing.assert_array_equal(mask.inside, INSIDE)


def test_a_mask_is_what_is_brighter_than_half_of_white(tmp_path):
    row = [0] * 8 + [1, 127, 128, 255]
    mask = decode.decode_mask(save(tmp_path / "mask.png", np.array([row], np.uint8)))
    assert mask.inside.tolist() == [[False] * 10 + [True] * 2]
    assert mask.encoding == "grey edges"


@pytest.mark.parametrize(("kind", "value"), [(np.uint8, 1), (np.uint8, 100), (np.uint16, 1), (np.uint16, 255)])
def test_of_two_levels_the_upper_one_is_lesion(tmp_path, kind, value):
    mask = decode.decode_mask(save(tmp_path / "mask.png", INSIDE.astype(kind) * kind(value)))
    np.testing.assert_array_equal(mask.inside, INSIDE)
    assert mask.encoding == f"0/{value}"


@pytest.mark.parametrize(("kind", "value"), [(np.uint8, 128), (np.uint8, 200), (np.uint16, 40000)])
def test_a_large_lesion_in_light_grey_is_no_image(tmp_path, kind, value):
    large = np.zeros((6, 8), bool)
    large[1:5, 2:7] = True
    mask = decode.decode_mask(save(tmp_path / "mask.png", large.astype(kind) * kind(value)))
    np.testing.assert_array_equal(mask.inside, large)
    assert mask.encoding == f"0/{value}"


@pytest.mark.parametrize("level", [100, 127, 128, 200])
def test_a_region_of_a_third_level_is_refused_and_a_thin_edge_is_not(tmp_path, level):
    """Of two regions, one of each level, half of white would otherwise keep one or both."""
    levels = np.zeros((20, 20), np.uint8)
    levels[2:7, 2:7], levels[10:15, 10:15] = level, 255
    with pytest.raises(DataError, match=f"regions of 3 levels, 0, {level}, 255; expected a mask of black and white"):
        decode.read_mask(save(tmp_path / "classes.png", levels))
    edged = np.zeros((20, 20), np.uint8)
    edged[8:17, 8:17], edged[10:15, 10:15] = level, 255  # two pixels of edge on every side
    assert decode.decode_mask(save(tmp_path / "edged.png", edged)).encoding == "grey edges"


def test_deep_masks_are_cut_at_half_of_their_own_white(tmp_path):
    levels = np.where(INSIDE, 65535, 0).astype(np.uint16)
    levels[5, 7], levels[5, 6] = 32767, 32768
    inside = decode.read_mask(save(tmp_path / "mask.png", levels))
    assert (inside[5, 7], inside[5, 6], inside[0, 0], inside[1, 2]) == (False, True, False, True)


@pytest.mark.parametrize(("colour", "finding"), [((0, 255, 0), "benign"), ((250, 5, 5), "malignant")])
def test_colours_tell_the_class(tmp_path, colour, finding):
    """Red has a luma of 76, so that half of white would miss it."""
    mask = decode.decode_mask(save(tmp_path / "mask.png", INSIDE[..., None] * np.array(colour, np.uint8)))
    assert (mask.encoding, mask.finding) == ("colours", finding)
    np.testing.assert_array_equal(mask.inside, INSIDE)


def test_red_wins_over_green(tmp_path):
    pixels = INSIDE[..., None] * np.array((0, 255, 0), np.uint8)
    pixels[5, 0] = (255, 0, 0)
    assert decode.decode_mask(save(tmp_path / "mask.png", pixels)).finding == "malignant"


def test_another_size_is_brought_to_the_image_s_by_the_nearest_pixel(tmp_path):
    large = np.kron(INSIDE, np.ones((4, 4), bool))
    large[4, 8] = False  # of the 16 pixels of one of the image's: not the middle one
    file = save(tmp_path / "mask.png", large)
    np.testing.assert_array_equal(decode.read_mask(Mask(str(file), (6, 8))), INSIDE)
    assert decode.read_mask(file).shape == (24, 32)
    (note,) = decode.decode_mask(file, (6, 8)).notes
    assert note.startswith("masks of another size")


def test_a_jpeg_mask_is_read_with_a_word(tmp_path):
    lesion = np.kron(INSIDE, np.ones((16, 16), bool))
    file = save(tmp_path / "mask.jpg", np.where(lesion, 255, 0).astype(np.uint8), quality=80)
    mask = decode.decode_mask(file)
    (note,) = mask.notes
    assert note.startswith("JPEG masks")
    np.testing.assert_array_equal(mask.inside, lesion)


def test_a_normal_image_without_a_mask_file_has_an_empty_one():
    assert decode.read_mask(Mask("", (2, 3))).tolist() == [[False] * 3] * 2


def test_the_union_holds_the_pixels_of_every_mask(tmp_path):
    moved = np.roll(INSIDE, 2, axis=1)
    files = [save(tmp_path / f"{k}.png", inside) for k, inside in enumerate((INSIDE, moved))]
    np.testing.assert_array_equal(decode.read_union(files), INSIDE | moved)
    np.testing.assert_array_equal(decode.read_union(files[:1]), INSIDE)
