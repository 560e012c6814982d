"""The held-out protocol on phantoms, from split to scores: what each part decides, and that the scored one nothing."""

import itertools
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import f1_score

from busi import protocols
from busi.config import RunConfig
from busi.dataset import arrays, catalog, splits
from busi.protocols import Heldout
from busi.runs import BEST, STATE, Store
from busi.training import compiled, train

pytestmark = pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")


def tiny(**settings):
    """Learns fast, gets worse again soon and ends early."""
    fields = {"learning_rate": 0.05, "epochs": 8, "patience": 2, "preprocessing": "augment", **settings}
    return RunConfig(protocol="heldout", image_size=32, base_filters=2, **fields)


def store_in(folder):
    return Store(folder / "runs", folder / "results")


def trained(config, data, store):
    """The run with its weights."""
    train(config, data, store)
    return store.find(config, data.fingerprint)


@pytest.fixture(autouse=True, scope="module")
def repository(tmp_path_factory):
    """One without splits, and a cache of its own."""
    folder = tmp_path_factory.mktemp("repository")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "ROOT", folder)
        patch.setattr(splits, "ROOT", folder)
        yield folder


@pytest.fixture(scope="module")
def folder(draw_quarters, tmp_path_factory):
    """Phantoms at a quarter of their size."""
    return draw_quarters(tmp_path_factory.mktemp("data") / "phantom")


@pytest.fixture(scope="module")
def data(folder, repository):
    return catalog.read(folder, expected=None)


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """The uninterrupted run."""
    return trained(tiny(), data, store_in(tmp_path_factory.mktemp("straight")))


def rows(data, part, config=None):
    """Of ``part``'s images in the catalog, normals included."""
    config = config or tiny()
    return np.flatnonzero(splits.of(data, config.split)[f"fold{config.fold}"] == part)


def lesions(data, part):
    return [row for row in rows(data, part) if data.table.image_class[row] != "normal"]


def weights(run, name):
    """Weights and, in the state, the optimizer, by their place in the file."""
    tensors = {}
    with h5py.File(run.folder / name) as file:
        file.visititems(lambda name, item: tensors.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return tensors


def assert_same_weights(run, other):
    for name in (STATE, BEST):
        ours, theirs = weights(run, name), weights(other, name)
        assert ours.keys() == theirs.keys()
        for place in ours:
            np.testing.assert_array_equal(ours[place], theirs[place], err_msg=f"{name}: {place}")


def assert_same_training(run, other):
    """Bit for bit: weights, every epoch, and all that was decided on the way."""
    assert_same_weights(run, other)
    ours, theirs = (each.history.drop(columns="seconds") for each in (run, other))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    assert run.metrics | {"seconds": 0} == other.metrics | {"seconds": 0}


def assert_same_scores(run, other):
    pd.testing.assert_frame_equal(run.per_image, other.per_image, check_exact=True)
    pd.testing.assert_frame_equal(run.bins, other.bins, check_exact=True)


# Who stands where


@pytest.mark.parametrize("split", splits.KINDS)
@pytest.mark.parametrize("fold", range(5))
def test_no_image_stands_in_two_parts(data, split, fold):
    """Told by their pixels, as the network sees them; normals are only ever scored."""
    config = tiny(split=split, fold=fold, preprocessing="none")
    made = Heldout(config, data)
    test = made.images[rows(data, "test", config)]
    seen = [{image.tobytes() for image in part} for part in (made.training.images, made.validation.images, test)]
    for one, other in itertools.combinations(seen, 2):
        assert one and other and one.isdisjoint(other)
    normals = arrays.whole(data, config).images[(data.table.image_class == "normal").to_numpy()]
    assert (seen[0] | seen[1]).isdisjoint(image.tobytes() for image in normals)


def test_training_and_validation_are_their_parts_lesions(data):
    made, whole = Heldout(tiny(preprocessing="none"), data), arrays.whole(data, tiny())
    for part, found in (("training", made.training), ("validation", made.validation)):
        np.testing.assert_array_equal(found.images, whole.images[lesions(data, part)])
        np.testing.assert_array_equal(found.targets, whole.targets[lesions(data, part)])
        assert found.targets[..., 0].any(axis=(1, 2)).all()


def test_all_parts_are_scaled_by_the_training_parts_constants(data):
    made, whole = Heldout(tiny(), data), arrays.whole(data, tiny()).images.astype(np.float64)
    least, most = whole.min(axis=(1, 2, 3), keepdims=True), whole.max(axis=(1, 2, 3), keepdims=True)
    normalized = (whole - least) / (most - least)
    training = normalized[lesions(data, "training")]
    np.testing.assert_allclose(made.images, (normalized - training.mean()) / training.std(), rtol=0, atol=1e-5)


# The scored part decides nothing


def changed(data, folder, which, target):
    """Those rows' images are noise and their masks other ones; the split stays as it was."""
    shutil.copytree(folder, target)
    draw = np.random.default_rng(0)
    for row in data.table.loc[which].itertuples():
        stem = target / row.image_class / row.name
        Image.fromarray(draw.integers(0, 256, (row.height, row.width), np.uint8)).save(f"{stem}.png")
        if row.image_class != "normal":
            for old in (target / row.image_class).glob(f"{row.name}_mask*.png"):
                old.unlink()
            mask = np.zeros((row.height, row.width), bool)
            mask[row.height // 4 : -row.height // 3, row.width // 3 : -row.width // 4] = True
            Image.fromarray(mask).save(f"{stem}_mask.png")
    return catalog.read(target, expected=None)


@pytest.fixture
def retrained(data, folder, tmp_path, monkeypatch):
    """The run on data of which some rows are changed, under the split of those that are not."""

    def run(which):
        other = changed(data, folder, which, tmp_path / "changed")
        (tmp_path / "params").mkdir()
        monkeypatch.setattr(splits, "ROOT", tmp_path)
        file = splits.write(data, "grouped")
        file.write_text(file.read_text(encoding="utf-8").replace(data.fingerprint, other.fingerprint), encoding="utf-8")
        return other, trained(tiny(), other, store_in(tmp_path))

    return run


def test_the_test_part_decides_nothing(straight, retrained, data):
    """Nor do normals, in whatever part: same weights, epochs, threshold and constants; other scores."""
    normals = np.flatnonzero(data.table.image_class == "normal")
    test = rows(data, "test")
    other, run = retrained(np.union1d(test, normals))
    assert other.fingerprint != data.fingerprint
    assert_same_training(run, straight)
    ours, theirs = (Heldout(tiny(), each) for each in (other, data))
    for part in ("training", "validation"):
        np.testing.assert_array_equal(getattr(ours, part).images, getattr(theirs, part).images)
        np.testing.assert_array_equal(getattr(ours, part).targets, getattr(theirs, part).targets)
    untouched = np.setdiff1d(np.arange(len(data.table)), np.union1d(test, normals))
    np.testing.assert_array_equal(ours.images[untouched], theirs.images[untouched])
    assert run.per_image.name.tolist() == straight.per_image.name.tolist()
    assert (run.per_image.brier != straight.per_image.brier).all()
    scored = straight.per_image.image_class != "normal"
    assert (run.per_image.dice != straight.per_image.dice)[scored].all()


def test_the_validation_part_decides_when_to_end_and_trains_nothing(straight, retrained, data):
    _, run = retrained(lesions(data, "validation"))
    both = min(len(run.history), len(straight.history))
    assert run.history.loss[:both].tolist() == straight.history.loss[:both].tolist()
    assert (run.history.validation_dice[:both] != straight.history.validation_dice[:both]).any()


# When training ends


@pytest.fixture(scope="module")
def protocol(data):
    return Heldout(tiny(), data)


def dices(*values):
    return [{"epoch": k, "validation_dice": value} for k, value in enumerate(values, start=1)]


NAN = float("nan")


@pytest.mark.parametrize(
    "values, improved, ended",
    [
        ([0.2], True, False),
        ([0.2, 0.3], True, False),
        ([0.2, 0.3, 0.3], False, False),  # of equals the first
        ([0.2, 0.3, 0.1, 0.3], False, True),  # two epochs after the best
        ([0.2, 0.3, 0.1, 0.4], True, False),
        ([0.2, NAN], False, False),  # a network that diverged is no better
        ([NAN, 0.2], True, False),
        ([0.2, 0.3, NAN, NAN], False, True),
    ],
)
def test_the_best_epoch_and_the_end_by_hand(protocol, values, improved, ended):
    assert protocol.improved(dices(*values)) is improved
    assert protocol.ended(dices(*values)) is ended


def test_before_the_first_epoch_and_without_patience_nothing_ends(protocol, data):
    assert protocol.ended([]) is False
    assert Heldout(tiny(patience=0), data).ended(dices(0.9, *[0.1] * 99)) is False


def test_training_ends_patience_epochs_after_the_best(straight):
    dice = straight.history.validation_dice
    best = int(dice.idxmax()) + 1
    assert 1 < best < 6
    assert straight.history.epoch.tolist() == list(range(1, best + 3))
    assert straight.metrics["best_epoch"] == best
    assert straight.metrics["epochs"] == best + 2
    assert straight.metrics["validation_dice"] == dice.max()


# What is scored


def predicted(run, data, which, name=BEST):
    """Probabilities of lesion at the network's size."""
    model = compiled(run.config)
    model.load_weights(run.folder / name)
    return model.predict(Heldout(run.config, data).images[which], verbose=0)[..., 0]


def restored(run, data, which, name=BEST):
    """Truth and probability of each image at its own size."""
    for probability, row in zip(predicted(run, data, which, name), data.table.loc[which].itertuples(), strict=True):
        yield arrays.union(row.masks), arrays.restored(probability, row.height, row.width, run.config)


def dice(truth, probability, threshold):
    return f1_score(truth.ravel(), probability.ravel() >= threshold, zero_division=0)


def test_validation_dice_is_the_best_over_the_thresholds_at_the_network_s_size(straight, data):
    p = predicted(straight, data, lesions(data, "validation")).astype(np.float64)
    y = arrays.whole(data, tiny()).targets[lesions(data, "validation"), ..., 0].astype(np.float64)
    of_thresholds = [
        np.mean([2 * (a * (b >= k / 100)).sum() / (a.sum() + (b >= k / 100).sum()) for a, b in zip(y, p, strict=True)])
        for k in range(1, 100)
    ]
    assert straight.metrics["validation_dice"] == pytest.approx(max(of_thresholds), rel=1e-6)


def test_a_network_that_ranks_pixels_well_counts_before_its_probabilities_are_large():
    """By hand: lesion at 0.11 and 0.12, background at 0.10 and 0.05; from 0.11 on, the lesion alone is inside."""
    truth, probability = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.11, 0.10], [0.05, 0.12]])
    dice = protocols._dice([truth], [probability])
    found = dict(zip(protocols.THRESHOLDS.tolist(), dice.tolist(), strict=True))
    assert (found[0.05], found[0.1], found[0.11], found[0.12], found[0.13]) == pytest.approx((2 / 3, 0.8, 1, 2 / 3, 0))


def test_a_network_that_diverged_marks_nothing():
    assert (protocols._dice([np.ones((2, 2))], [np.full((2, 2), np.nan)]) == 0).all()


def test_nothing_to_find_and_nothing_marked_counts_as_not_found():
    assert (protocols._dice([np.zeros((2, 2))], [np.full((2, 2), 0.5)]) == 0).all()


def test_the_threshold_is_the_validation_parts_best(straight, data):
    thresholds = [k / 100 for k in range(1, 100)]
    images = list(restored(straight, data, lesions(data, "validation")))
    means = [np.mean([dice(*image, threshold) for image in images]) for threshold in thresholds]
    assert straight.metrics["threshold"] == pytest.approx(thresholds[int(np.argmax(means))])


def test_the_best_epochs_weights_are_scored(straight, data):
    """At the images' own sizes, against all masks; the last epoch's weights would score otherwise."""
    scored = straight.per_image[straight.per_image.image_class != "normal"]
    test, threshold = lesions(data, "test"), straight.metrics["threshold"]
    assert scored.name.tolist() == data.table.name[test].tolist()
    best, last = ([dice(*image, threshold) for image in restored(straight, data, test, name)] for name in (BEST, STATE))
    np.testing.assert_allclose(scored.dice, best, rtol=0, atol=1e-6)
    assert np.abs(scored.dice - last).max() > 1e-3


def test_every_image_of_the_test_part_is_scored_once_and_named(straight, data):
    test = rows(data, "test")
    split = splits.of(data, "grouped")
    for column in ("image_class", "name", "group"):
        assert straight.per_image[column].tolist() == split[column][test].tolist()
    np.testing.assert_allclose(straight.per_image.lesion_share, data.table.lesion_share[test], rtol=0, atol=1e-6)


def test_of_normals_only_what_they_have_is_scored(straight):
    normals = straight.per_image[straight.per_image.image_class == "normal"]
    assert len(normals) >= 1
    missing = {name for name in normals.columns if normals[name].isna().all()}
    assert missing == {"dice", "iou", "precision", "recall", "hd95", "nsd", "detected"}
    # What is predicted there is all wrong; the rest is right.
    np.testing.assert_allclose(normals.accuracy, 1 - normals.predicted_share, rtol=0, atol=2e-6)
    assert not straight.per_image[straight.per_image.image_class != "normal"].isna().any(axis=None)


def test_bins_count_the_pixels_of_the_scored_lesion_images(straight, data):
    images = list(restored(straight, data, lesions(data, "test")))
    inside = np.concatenate([truth.ravel() for truth, _ in images])
    probability = np.concatenate([probability.ravel() for _, probability in images])
    bins = straight.bins
    assert len(bins) == 1000
    assert bins.probability.tolist() == pytest.approx([(k + 0.5) / 1000 for k in range(1000)])
    assert (bins.lesion.sum(), bins.background.sum()) == (inside.sum(), (~inside).sum())
    # A bin's middle stands for its pixels to half a bin.
    assert np.average(bins.probability, weights=bins.lesion) == pytest.approx(probability[inside].mean(), abs=0.0005)


def test_parameters_and_images_are_counted(straight, data):
    assert straight.metrics["parameters"] == compiled(tiny()).count_params()
    assert straight.metrics["images"] == len(lesions(data, "training"))


# Killed, resumed and continued


class Killed(BaseException):
    """Stands for the end of the process: nothing in the package may catch it."""


@pytest.mark.parametrize(("after", "more"), [("best_epoch", 1), ("epochs", 0)], ids=["training", "scored"])
def test_a_killed_run_goes_on_to_the_same_bits(straight, data, tmp_path, monkeypatch, after, more):
    """Each epoch is put aside in one move, and the finished run in one more: killed instead of that after so many."""
    left = straight.metrics[after] + more
    moves = itertools.count()
    rename = Path.rename

    def killed_at_rename(path, target):
        if next(moves) == left:
            raise Killed
        return rename(path, target)

    store = store_in(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "rename", killed_at_rename)
        train(tiny(), data, store)
    before = pd.read_csv(max(store.work(tiny(), data.fingerprint).glob("epoch-*")) / "history.csv")
    assert before.epoch.tolist() == list(range(1, left + 1))
    assert store.find(tiny(), data.fingerprint) is None

    run = trained(tiny(), data, store)
    assert_same_training(run, straight)
    assert_same_scores(run, straight)
    # Measured seconds never repeat: equal ones were not trained again.
    assert run.history.seconds[:left].tolist() == before.seconds.tolist()


def test_a_longer_run_goes_on_where_a_shorter_ended(straight, data, tmp_path):
    """First where its epochs ran out, one after the best; then where patience did, with nothing left to train."""
    store = store_in(tmp_path)
    short = trained(tiny(epochs=straight.metrics["best_epoch"] + 1), data, store)
    longer, longest = (trained(tiny(epochs=epochs), data, store) for epochs in (8, 20))
    assert_same_training(longer, straight)
    assert_same_scores(longer, straight)
    assert longer.history.seconds[: len(short.history)].tolist() == short.history.seconds.tolist()
    assert longest.config.epochs == 20
    assert_same_training(longest, straight)
    assert_same_scores(longest, straight)
    assert longest.history.seconds.tolist() == longer.history.seconds.tolist()
