"""Parts of a run on small phantoms: who is in which part, what scales them, and the masks of an image by its name."""

import itertools

import numpy as np
import pytest

from busi.config import RunConfig, StudyError
from busi.dataset import arrays, catalog, decode, parts, preprocessing, splits

pytestmark = pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")


@pytest.fixture(scope="module")
def images(quarters_dir, inside_study):
    """Read phantoms at a quarter of their size."""
    return catalog.read_catalog(quarters_dir, expected=None)


def heldout(**settings):
    fields = {"preprocessing": "augment", **settings}
    return RunConfig(protocol="heldout", image_size=32, **fields)


def published(**settings):
    return RunConfig(image_size=204, base_filters=2, **settings)


def rows(images, part, config, *, normals):
    """Find the catalog's rows in a part of the run's fold."""
    split = splits.load_split(images, config.split)
    chosen = []
    for row, (name, image_class) in enumerate(zip(split[f"fold{config.fold}"], split.image_class, strict=True)):
        if name == part and (normals or image_class != "normal"):
            chosen.append(row)
    return chosen


# Who is in which part


@pytest.mark.parametrize("split", splits.KINDS)
@pytest.mark.parametrize("fold", range(5))
def test_no_image_is_in_two_parts(images, split, fold):
    """Compares pixels as the network sees them; normals are only ever tested."""
    config = heldout(split=split, fold=fold, preprocessing="none")
    loaded = parts.load_parts(config, images)
    seen = []
    for part in (loaded.training, loaded.validation, loaded.test):
        seen.append({image.tobytes() for image in part.images})
    for one, other in itertools.combinations(seen, 2):
        assert one and other and one.isdisjoint(other)
    normals = arrays.all_arrays(images, config).images[(images.table.image_class == "normal").to_numpy()]
    assert (seen[0] | seen[1]).isdisjoint(image.tobytes() for image in normals)


def test_parts_are_those_of_the_split(images):
    """The test part alone has normals; each part is in the catalog's order, with names, images and targets together."""
    config = heldout(preprocessing="none", fold=2)
    loaded = parts.load_parts(config, images)
    everything = arrays.all_arrays(images, config)
    for name, part in (("training", loaded.training), ("validation", loaded.validation), ("test", loaded.test)):
        expected = rows(images, name, config, normals=name == "test")
        assert part.names.tolist() == images.table.name[expected].tolist()
        np.testing.assert_array_equal(part.images, everything.images[expected])
        np.testing.assert_array_equal(part.targets, everything.targets[expected])
    assert loaded.training.targets[..., 0].any(axis=(1, 2)).all()
    assert loaded.validation.targets[..., 0].any(axis=(1, 2)).all()
    classes = images.table.set_index("name").image_class[loaded.test.names]
    assert set(classes) == {"benign", "malignant", "normal"}


def test_normals_are_trained_on_where_asked_and_never_validated_with(images):
    config = heldout(preprocessing="none", fold=2)
    asked = parts.load_parts(heldout(preprocessing="none", fold=2, normals=True), images)
    plain = parts.load_parts(config, images)
    assert asked.training.names.tolist() == images.table.name[rows(images, "training", config, normals=True)].tolist()
    assert len(asked.training) > len(plain.training)
    assert asked.validation.names.tolist() == plain.validation.names.tolist()
    assert asked.test.names.tolist() == plain.test.names.tolist()


def test_a_published_run_is_trained_on_all_lesion_images(images):
    config = published(preprocessing="none")
    loaded = parts.load_parts(config, images)
    assert (loaded.validation, loaded.test) == (None, None)
    expected = arrays.published_arrays(images, config).shuffled(config.seed)
    assert sorted(loaded.training.names) == sorted(images.lesions.name)
    assert loaded.training.names.tolist() == expected.names.tolist()
    np.testing.assert_array_equal(loaded.training.images, expected.images)
    np.testing.assert_array_equal(loaded.training.targets, expected.targets)


# Scaling


def normalize(pixels):
    """Take each image to [0, 1] by its own extremes, in float64."""
    pixels = pixels.astype(np.float64)
    lowest = pixels.min(axis=(1, 2, 3), keepdims=True)
    highest = pixels.max(axis=(1, 2, 3), keepdims=True)
    return (pixels - lowest) / (highest - lowest)


def test_all_parts_are_scaled_by_constants_of_the_training_part(images):
    config = heldout()
    loaded = parts.load_parts(config, images)
    normalized = normalize(arrays.all_arrays(images, config).images)
    training = normalized[rows(images, "training", config, normals=False)]
    assert loaded.scaling == pytest.approx((training.mean(), training.std()), rel=1e-5)
    for name, part in (("training", loaded.training), ("validation", loaded.validation), ("test", loaded.test)):
        pixels = normalized[rows(images, name, config, normals=name == "test")]
        expected = (pixels - training.mean()) / training.std()
        np.testing.assert_allclose(part.images, expected, rtol=0, atol=1e-5)


def test_constants_of_a_published_run_come_from_all_lesion_images(images):
    config = published(preprocessing="standardize")
    normalized = normalize(arrays.published_arrays(images, config).images)
    loaded = parts.load_parts(config, images)
    assert loaded.scaling == pytest.approx((normalized.mean(), normalized.std()), rel=1e-5)
    assert loaded.training.images.mean() == pytest.approx(0, abs=1e-5)


def test_other_test_images_change_neither_constants_nor_training(images, monkeypatch):
    """Validation and test images are replaced by noise; training images and constants stay the same to the bit."""
    config = heldout()
    before = parts.load_parts(config, images)
    made = arrays.all_arrays(images, config)
    noise = np.random.default_rng(0).random(made.images.shape, dtype="float32") ** 3
    training = rows(images, "training", config, normals=False)
    noise[training] = made.images[training]
    changed = arrays.Arrays(made.names, noise, made.targets)
    monkeypatch.setattr(parts, "all_arrays", lambda *_: changed)
    after = parts.load_parts(config, images)
    assert after.scaling == before.scaling
    np.testing.assert_array_equal(after.training.images, before.training.images)
    assert (after.test.images != before.test.images).any(axis=(1, 2, 3)).all()


def test_the_run_s_scaling_prepares_one_image_as_the_parts_do(images):
    """A network asked about a single image has the constants and nothing else of the data."""
    config = heldout()
    loaded = parts.load_parts(config, images)
    row = images.table.set_index("name").loc[loaded.test.names[3]]
    pixels = catalog.read_grey(row.image) / np.float32(255)
    small = arrays.resize_image(pixels, config.image_size, config.resize)[None, ..., None]
    alone = preprocessing.scale(small, config.preprocessing, loaded.scaling)
    np.testing.assert_array_equal(alone[0], loaded.test.images[3])


def test_augmentation_is_left_to_training(images):
    """Two readings that differ in augmentation alone are loaded alike."""
    one = parts.load_parts(heldout(preprocessing="augment"), images)
    other = parts.load_parts(heldout(preprocessing="standardize"), images)
    np.testing.assert_array_equal(one.training.images, other.training.images)


# Truths


def test_truths_are_the_union_of_all_masks_at_original_size(images):
    table = images.table.set_index("name")
    names = ["malignant (2)", "benign (2)", "normal (1)"]
    truths = parts.read_truths(images, names)
    for name, truth in zip(names, truths, strict=True):
        row = table.loc[name]
        assert (truth.shape, truth.dtype) == ((row.height, row.width), bool)
        assert truth.mean() == pytest.approx(row.lesion_share)
    assert len(table.masks["benign (2)"]) == 2
    assert truths[1].sum() > decode.read_mask(table.masks["benign (2)"][0]).sum()
    assert not truths[2].any()


def test_an_unknown_name_is_refused(images):
    with pytest.raises(StudyError, match=r"^benign \(999\): no image of this name"):
        parts.read_truths(images, ["benign (1)", "benign (999)"])
