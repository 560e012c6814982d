"""Blind predictors: against Keras, against numbers of earlier trainings on BUSI, and by hand."""

import keras
import numpy as np
import pytest

from busi.config import RunConfig, StudyError
from busi.scoring.blind import draw_orders, score_mean_mask, train_biases

ADAM = {"optimizer": "adam", "momentum": 0.0}


@pytest.fixture
def targets():
    """Return six small targets, a lesion of another size in each, with one mirrored soft pixel."""
    lesion = np.zeros((6, 4, 4), np.float32)
    for image in range(6):
        lesion[image].flat[: image + 1] = 1
    lesion[2, 3, 3] = 0.25
    return np.stack([lesion, np.mod(lesion + 1, 2)], axis=-1)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        ADAM,
        ADAM | {"schedule": "exponential"},
        {"momentum": 0.0},
        {"loss": "kld"},
        {"loss": "dice"},
        ADAM | {"last_steps": 4},
    ],
)
def test_biases_train_as_a_keras_layer_does_that_sees_nothing(targets, settings):
    """A 1x1 convolution of a black image is its bias alone; Keras trains and measures it as it does a published run."""
    from busi.model.losses import make_loss
    from busi.model.metrics import published_metrics
    from busi.model.optimizers import make_optimizer

    config = RunConfig(epochs=3, **settings)
    order = np.array([3, 0, 5, 2, 4, 1])
    # The last epoch may be cut short, as that of the printed log was.
    last = config.last_steps or len(order)
    outputs = keras.layers.Conv2D(2, 1)
    model = keras.Sequential([keras.Input((4, 4, 1)), outputs])
    model.compile(make_optimizer(config, planned_steps=18), make_loss(config), metrics=published_metrics())
    black = np.zeros((6, 4, 4, 1), np.float32)
    model.fit(black, targets[order], batch_size=1, epochs=2, shuffle=False, verbose=0)
    history = model.fit(black[:last], targets[order[:last]], batch_size=1, shuffle=False, verbose=0).history
    ours = train_biases(targets, order[None], config).iloc[0]
    for name in ("loss", "accuracy", "auc"):
        assert ours[name] == pytest.approx(history[name][-1], abs=2e-6), name


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"bce": "probabilities"}, "bce 'probabilities'"),
        ({"batch_size": 4, "shuffle": True}, "shuffle True, batch_size 4"),
        ({"loss": "kld", "clipped": False}, "clipped False"),
        ({"schedule": "cosine"}, "schedule 'cosine'"),
        ({"weight_decay": 0.01}, "weight_decay 0.01"),
    ],
)
def test_settings_that_the_biases_do_not_know_are_refused(targets, settings, named):
    """Trained without them, they would be compared with networks that are trained otherwise."""
    with pytest.raises(StudyError, match=f"the two biases cannot be trained with {named}; expected the published"):
        train_biases(targets, draw_orders(6, [3]), RunConfig(epochs=1, **settings))


def test_each_order_is_trained_by_itself(targets):
    orders = draw_orders(6, [3, 4])
    together = train_biases(targets, orders, RunConfig(epochs=2))
    for number, order in enumerate(orders):
        alone = train_biases(targets, order[None], RunConfig(epochs=2))
        assert alone.iloc[0].tolist() == pytest.approx(together.iloc[number].tolist(), abs=1e-12)
    assert together.loss[0] != together.loss[1]


def test_the_mean_mask_of_two_images_by_hand():
    """Two pixels: the first is lesion in one image of two, the second never."""
    lesion = np.array([[[1.0, 0.0]], [[0.0, 0.0]]])
    scores = score_mean_mask(np.stack([lesion, 1 - lesion], axis=-1))
    assert scores["loss"] == pytest.approx(np.log(2) / 2, abs=1e-6)  # the second pixel costs nothing
    assert scores["accuracy"] == 0.75  # one half is not above one half: background
    # Channel scores 0.5, 0.5 of the first pixel, 0 and 1 of the second: every tie is between a positive and a negative.
    assert scores["auc"] == pytest.approx(1 - (2 * 2 / 2) / 16, abs=1e-6)


@pytest.mark.parametrize("loss", ["kld", "dice"])
def test_the_mean_masks_loss_is_keras_own(targets, loss):
    mask = targets[..., 0].mean(axis=0)
    both = np.broadcast_to(np.stack([mask, 1 - mask], axis=-1), targets.shape)
    keras_loss = {"kld": keras.losses.KLDivergence(), "dice": keras.losses.Dice()}[loss]
    expected = [float(keras_loss(targets[k : k + 1], both[k : k + 1])) for k in range(len(targets))]
    assert score_mean_mask(targets, loss)["loss"] == pytest.approx(np.mean(expected), abs=2e-6)


@pytest.mark.parametrize(
    "settings, loss, auc",
    [
        (ADAM, 0.30475, 0.91657),
        (ADAM | {"schedule": "exponential"}, 0.30677, 0.90603),
        ({}, 0.30642, 0.91134),
    ],
)
def test_dead_networks_of_busi_trained_class_by_class_are_two_biases(busi_targets, settings, loss, auc):
    """Adam fixed, Adam decaying and BCE, as trained before: their moving metrics are those of two numbers."""
    by_class = np.arange(len(busi_targets))[None]
    scores = train_biases(busi_targets, by_class, RunConfig(**settings)).iloc[0]
    assert (scores.loss, scores.auc) == pytest.approx((loss, auc), abs=1e-4)


def test_the_published_adam_row_is_within_the_range_of_mixed_orders_and_not_class_by_class(busi_targets):
    orders = np.concatenate([np.arange(len(busi_targets))[None], draw_orders(len(busi_targets), range(25))])
    scores = train_biases(busi_targets, orders, RunConfig(**ADAM))
    by_class, mixed = scores.iloc[0], scores.iloc[1:]
    assert round(mixed.loss.min(), 4) <= 0.3068 <= round(mixed.loss.max(), 4) < 0.3072
    assert 0.902 < mixed.auc.min() <= 0.9052 <= mixed.auc.max() < 0.91
    assert by_class.loss < 0.305 and by_class.auc > 0.916


def test_the_mean_mask_of_busi_is_not_beaten_by_the_published_bce_row(busi_targets):
    scores = score_mean_mask(busi_targets)
    assert [round(scores[name], 4) for name in ("loss", "accuracy")] == [0.2393, 0.9083]
    assert scores["auc"] == pytest.approx(0.9636, abs=1e-4)
    assert scores["auc"] > 0.9624  # Table 3, BCE
