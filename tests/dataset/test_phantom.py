"""Phantoms: speckle against theory, lesions against numbers measured on BUSI, files against the release."""

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from scipy.ndimage import binary_dilation, binary_erosion
from skimage.draw import ellipse, polygon2mask
from skimage.measure import regionprops

from busi.config import StudyError
from busi.dataset import phantom

LESIONS = ("benign", "malignant")


def generators(count):
    return (np.random.default_rng(seed) for seed in range(count))


def contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.png")}


# Speckle


@pytest.fixture(scope="module")
def homogeneous():
    """Draw the envelope of a megapixel of tissue at -20 dB: about 70,000 independent speckles."""
    return phantom.envelope(np.full((1000, 1000), -20.0), np.random.default_rng(0)).astype(float)


def test_envelope_is_rayleigh_with_the_power_of_the_level(homogeneous):
    point_snr = np.sqrt(np.pi / (4 - np.pi))  # 1.913
    assert homogeneous.mean() / homogeneous.std() == pytest.approx(point_snr, rel=0.01)
    assert (homogeneous**2).mean() == pytest.approx(0.01, rel=0.015)
    apart = homogeneous[::10, ::20].ravel()  # far enough to be independent
    assert stats.kstest(apart, stats.rayleigh(scale=np.sqrt(0.01 / 2)).cdf).pvalue > 0.05


@pytest.mark.parametrize(("axis", "width"), list(enumerate(phantom.PULSE)))
def test_speckle_is_as_coarse_as_the_pulse(homogeneous, axis, width):
    """A Gaussian pulse of width s correlates the field by exp(-d²/4s²), and intensity by its square (Siegert)."""
    intensity = np.moveaxis(homogeneous**2, axis, 0)

    def correlation(lag):
        return np.corrcoef(intensity[lag:].ravel(), intensity[:-lag].ravel())[0, 1]

    for lag in (1, 2, 3, 5):
        assert correlation(lag) == pytest.approx(np.exp(-(lag**2) / (2 * width**2)), abs=0.015)
    assert correlation(25) == pytest.approx(0, abs=0.015)


def test_speckle_is_multiplicative():
    """The deviation grows with the mean: 20 dB more give ten times the mean and ten times the deviation."""
    level = np.repeat([[-40.0, -20.0, 0.0]], 400, axis=0).repeat(400, axis=1)
    patches = np.split(phantom.envelope(level, np.random.default_rng(1)), 3, axis=1)
    means, spreads = np.array([(patch[:, 20:-20].mean(), patch[:, 20:-20].std()) for patch in patches]).T
    np.testing.assert_allclose(means[1:] / means[:-1], 10, rtol=0.03)
    np.testing.assert_allclose(spreads / means, np.sqrt((4 - np.pi) / np.pi), rtol=0.03)


def test_compression_is_linear_in_decibels():
    def grey(decibels):
        return phantom.compress(np.full((9, 9), 10 ** (decibels / 20), np.float32))[4, 4]

    half = -phantom.DYNAMIC_RANGE / 2
    assert [grey(level) for level in (10, 0, half, 2 * half - 10)] == [255, 255, 127, 0]


# Outlines


@pytest.mark.parametrize(("image_class", "median", "sigma"), [("benign", 0.038, 1.14), ("malignant", 0.121, 0.83)])
def test_lesion_areas_are_distributed_as_in_busi(image_class, median, sigma):
    areas = []
    for rng in generators(2000):
        (outline,) = phantom.draw_outlines(image_class, (450, 550), 1, rng)
        z = outline @ (1j, 1)
        areas.append(abs(np.sum(np.conj(z) * np.roll(z, -1)).imag) / 2 / (450 * 550))
    # Two standard errors of a quartile of 2000 such values are 7 % (benign) and 5 % (malignant).
    expected = median * np.exp(sigma * stats.norm.ppf([0.25, 0.5, 0.75]))
    np.testing.assert_allclose(np.quantile(areas, [0.25, 0.5, 0.75]), expected, rtol=0.07)
    assert min(areas) >= 0.003 * (1 - 1e-9)
    assert max(areas) <= 0.35 * (1 + 1e-9)


def test_malignant_outlines_are_as_irregular_as_in_busi():
    """BUSI's masks have these medians: solidity 0.981 and 0.884; circularity, 4 pi area / perimeter², 0.85 and 0.62."""
    solidity, circularity = {}, {}
    for image_class in LESIONS:
        outlines = [phantom.draw_outlines(image_class, (300, 360), 1, rng)[0] for rng in generators(60)]
        regions = [regionprops(polygon2mask((300, 360), outline).astype(int))[0] for outline in outlines]
        solidity[image_class] = np.array([region.solidity for region in regions])
        circularity[image_class] = np.median([4 * np.pi * r.area / r.perimeter_crofton**2 for r in regions])
    assert np.median(solidity["benign"]) == pytest.approx(0.981, abs=0.015)
    assert np.median(solidity["malignant"]) == pytest.approx(0.884, abs=0.015)
    assert (solidity["malignant"] < solidity["benign"].min()).mean() > 0.9
    assert circularity["benign"] == pytest.approx(0.85, abs=0.06)
    assert circularity["malignant"] == pytest.approx(0.62, abs=0.06)


def test_two_lesions_stay_inside_the_image_and_do_not_overlap():
    height, width = 560, 400  # the narrowest image possible
    for rng in generators(500):
        left, right = phantom.draw_outlines("benign", (height, width), 2, rng)
        assert left[:, 1].min() > 0
        assert left[:, 1].max() < width / 2 < right[:, 1].min()
        assert right[:, 1].max() < width
        assert min(left[:, 0].min(), right[:, 0].min()) > 0
        assert max(left[:, 0].max(), right[:, 0].max()) < height


# Lesions


@pytest.mark.parametrize("image_class", LESIONS)
def test_lesions_are_darker_than_the_tissue_around(image_class):
    for rng in generators(6):
        pixels, masks = phantom.draw_scan(image_class, 1, rng)
        (mask,) = masks
        ring = binary_dilation(mask, iterations=16) & ~binary_dilation(mask, iterations=4)
        # Tissue behind the lesion is in its shadow or enhancement: only the part above counts.
        ring[round(np.nonzero(mask)[0].mean()) :] = False
        inside = binary_erosion(mask, iterations=4)
        assert pixels[inside].mean() < pixels[ring].mean() - 15


def test_gain_behind_a_lesion_is_proportional_to_the_way_through_it():
    mask = np.zeros((120, 120), bool)
    mask[20:60, 30:90] = True  # 40 deep
    gain = phantom.gain_behind(mask, -20.0)
    assert gain[100, 60] == pytest.approx(-20, abs=1e-3)
    assert gain[39, 60] == pytest.approx(-10, abs=1e-3)  # after 20 of 40 rows
    assert gain[10, 60] == pytest.approx(0, abs=1e-3)
    assert gain[100, 5] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(("insert", "sign"), [(phantom.insert_benign, 1), (phantom.insert_malignant, -1)])
def test_enhancement_behind_benign_and_shadow_behind_malignant(insert, sign):
    mask = np.zeros((400, 400), bool)
    mask[ellipse(160, 200, 60, 70)] = True
    for rng in generators(6):
        level = insert(np.full((400, 400), -35, np.float32), mask, rng)
        pixels = phantom.compress(phantom.envelope(level, rng))
        behind, beside = pixels[240:380, 190:210].astype(float), pixels[240:380, 20:100].astype(float)
        assert sign * (behind.mean() - beside.mean()) > 10


# Files


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return phantom.draw_phantoms(tmp_path_factory.mktemp("phantom") / "data", benign=10, malignant=3, normal=3)


def test_layout_is_that_of_the_release(drawn):
    names = {
        f"{image_class}/{image_class} ({k}){suffix}.png"
        for image_class, count in {"benign": 10, "malignant": 3, "normal": 3}.items()
        for k in range(1, count + 1)
        for suffix in ("", "_mask")
    }
    assert contents(drawn).keys() == names | {"benign/benign (2)_mask_1.png", "benign/benign (10)_mask_1.png"}
    assert [path.name for path in drawn.parent.iterdir()] == ["data"]


def test_modes_sizes_and_values_are_those_of_the_release(drawn):
    modes = {"image": set(), "mask": set()}
    for file in drawn.rglob("*.png"):
        with Image.open(file) as image:
            modes["mask" if "_mask" in file.name else "image"].add(image.mode)
            assert 400 <= image.width <= 640
            assert 380 <= image.height <= 560
            if "_mask" in file.name:
                with Image.open(file.with_name(file.name.partition("_mask")[0] + ".png")) as original:
                    assert image.size == original.size
                values = set(np.unique(np.asarray(image.convert("L"))))
                assert values == ({0} if "normal" in file.name else {0, 255})
    assert modes == {"image": {"L", "RGB"}, "mask": {"1", "RGB", "RGBA"}}


def test_the_same_seed_gives_the_same_bytes_however_many_are_drawn(drawn, tmp_path):
    fewer = contents(phantom.draw_phantoms(tmp_path / "fewer", benign=2, malignant=1, normal=1))
    assert len(fewer) == 9
    assert fewer.items() <= contents(drawn).items()


def test_another_seed_gives_other_images(drawn, tmp_path):
    other = contents(phantom.draw_phantoms(tmp_path / "other", benign=1, malignant=1, normal=1, seed=1))
    same = contents(drawn)
    assert [name for name in other if other[name] == same[name]] == []


def test_an_existing_folder_is_refused_and_not_changed(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(StudyError, match="data: exists; nothing is overwritten: remove it or name another folder"):
        phantom.draw_phantoms(folder)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "notes.txt"]
    assert (folder / "notes.txt").read_text() == "mine"


def test_negative_numbers_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(StudyError, match="malignant: got -1; expected 0 or more"):
        phantom.draw_phantoms(tmp_path / "new" / "data", malignant=-1)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_no_files(tmp_path):
    with pytest.raises(TypeError):  # half an image cannot be drawn, which shows after the benign one
        phantom.draw_phantoms(tmp_path / "data", benign=1, malignant=0.5, normal=0)
    assert list(tmp_path.iterdir()) == []
