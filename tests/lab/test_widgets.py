"""The lab's widgets, used as a person does: set values, click buttons, and read what is shown."""

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from busi.dataset.catalog import read_grey
from busi.lab import widgets
from busi.lab.widgets import Explorer, Trainer

KLD, RAW = "loss: KLD", "data: No preprocess"


@pytest.fixture
def explorer(laboratory):
    return Explorer(laboratory.catalog, laboratory.variants)


@pytest.fixture
def trainer(laboratory, monkeypatch):
    monkeypatch.setattr(widgets, "SMALL", {"protocol": "heldout", "image_size": 32, "base_filters": 2, "epochs": 2})
    return Trainer(laboratory.catalog)


def shown(widget) -> str:
    """Return the figure's alternative text."""
    return re.search('alt="([^"]*)"', widget.shown.value)[1]


def upload(explorer, name: str, content: bytes) -> None:
    file = {"name": name, "type": "image/png", "size": len(content), "content": content}
    explorer.file.value = ({**file, "last_modified": datetime(2024, 1, 1, tzinfo=UTC)},)


def description(laboratory, variant: str, image: str, threshold: float | None = None) -> str:
    case = laboratory.variants[variant].case(image, threshold)
    return f"{variant}: {case.description}"


def test_the_first_image_is_shown_at_the_threshold_of_its_network(laboratory, explorer):
    first = laboratory.catalog.table.name[0]
    assert shown(explorer) == f"{first}. {description(laboratory, KLD, first)}."
    assert explorer.threshold.value == laboratory.variants[KLD].find_run(first).threshold


def test_image_variant_and_threshold_decide_what_is_shown(laboratory, explorer):
    image = laboratory.catalog.table.name[3]
    explorer.image.value = image
    explorer.variant.value = RAW
    assert shown(explorer) == f"{image}. {description(laboratory, RAW, image)}."
    explorer.threshold.value = 0.95
    assert shown(explorer) == f"{image}. {description(laboratory, RAW, image, 0.95)}."


def test_two_variants_are_shown_side_by_side_at_one_threshold(laboratory, explorer):
    explorer.threshold.value = 0.4
    explorer.other.value = RAW
    first = laboratory.catalog.table.name[0]
    assert (
        shown(explorer)
        == f"{first}. {description(laboratory, KLD, first, 0.4)}; {description(laboratory, RAW, first, 0.4)}."
    )
    explorer.other.value = widgets.NOTHING
    assert RAW not in shown(explorer)


def test_worst_first_walks_from_the_lowest_dice_to_the_highest(laboratory, explorer):
    scores = laboratory.variants[KLD].scores.dropna(subset="dice").set_index("name").dice
    explorer.worst_first.value = True
    walked = []
    for _ in scores:
        walked.append(explorer.image.value)
        assert shown(explorer).startswith(f"{explorer.image.value}. ")
        explorer.following.click()
    assert scores[walked].is_monotonic_increasing
    assert sorted(walked) == sorted(scores.index)
    assert explorer.image.value == walked[0]  # from the last image to the first
    explorer.previous.click()
    assert explorer.image.value == walked[-1]
    explorer.worst_first.value = False
    assert explorer.image.value == walked[-1]
    assert list(explorer.image.options) == list(laboratory.catalog.table.name)


def test_a_file_of_ones_own_is_shown_until_another_image_is_chosen(laboratory, explorer):
    upload(explorer, "mine.png", Path(laboratory.catalog.table.image[1]).read_bytes())
    assert shown(explorer).startswith(f"mine.png. {KLD}: ")
    assert "Dice" not in shown(explorer)  # it has no mask
    explorer.image.value = laboratory.catalog.table.name[2]
    assert shown(explorer).startswith(f"{laboratory.catalog.table.name[2]}. {KLD}: ")


def test_a_file_that_is_no_image_is_refused_and_changes_nothing(explorer):
    before = explorer.shown.value
    upload(explorer, "<notes>.txt", b"no image")
    assert explorer.message.value.startswith("&lt;notes&gt;.txt: not a readable image")
    assert explorer.shown.value == before


def test_a_file_of_ones_own_has_the_pixels_that_a_prediction_would_read(laboratory, explorer, tmp_path):
    """Of 16 bits, which are scaled, not cut off at 255."""
    deep = np.round(np.linspace(0, 65535, 48 * 64)).astype(np.uint16).reshape(48, 64)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    upload(explorer, "deep.png", (tmp_path / "deep.png").read_bytes())
    (case,) = explorer.cases.values()
    np.testing.assert_array_equal(case.pixels, read_grey(tmp_path / "deep.png"))


def test_attempts_stay_in_the_figure(trainer):
    for value in ("0.001", "0.02"):
        trainer.value.value = value
        asyncio.run(trainer.train(trainer.config))
    assert list(trainer.attempts) == ["learning_rate 0.001", "learning_rate 0.02"]
    slow, fast = trainer.attempts.values()
    assert slow.epoch.iloc[-1] == fast.epoch.iloc[-1] == 2
    assert slow.loss[0] == pytest.approx(fast.loss[0], rel=1e-6)  # the same first weights and images
    assert slow.loss[1] != fast.loss[1]
    assert trainer.progress.value == trainer.progress.max == 2
    assert f"loss {fast.loss.iloc[-1]:.4f}, Dice on the validation part {fast.validation_dice.iloc[-1]:.3f}" in shown(
        trainer
    )


def test_the_buttons_start_and_stop(trainer):
    async def person():
        trainer.epochs.value = 1000
        trainer.start.click()
        while "learning_rate 0.001" not in trainer.attempts:
            await asyncio.sleep(0.01)
        assert trainer.start.disabled and not trainer.stop.disabled
        trainer.stop.click()
        while trainer.start.disabled:
            await asyncio.sleep(0.01)

    asyncio.run(person())
    assert 0 < trainer.attempts["learning_rate 0.001"].epoch.iloc[-1] < 1000
    assert trainer.stop.disabled


def test_each_parameter_offers_its_choices_and_its_default(trainer):
    trainer.parameter.value = "loss"
    assert trainer.value.options == ("bce", "kld", "dice", "lesion-dice", "lesion-dice+bce")
    assert trainer.value.value == "bce"
    trainer.parameter.value = "batch_size"
    assert (trainer.value.options, trainer.value.value) == ((), "8")


def test_what_training_refuses_is_told(laboratory, trainer):
    """Three images are too few for any split."""
    trainer._catalog = replace(laboratory.catalog, table=laboratory.catalog.table[:3], fingerprint="few")
    asyncio.run(trainer.train(trainer.config))
    assert trainer.message.value.startswith("3 images: at most 1 have the same class")
    assert not trainer.start.disabled and trainer.stop.disabled


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("loss", "mse", "training: loss: got &#x27;mse&#x27; (str)"),
        ("batch_size", "0", "training: batch_size: got 0 (int)"),
        ("learning_rate", "[0", "learning_rate: got &#x27;[0&#x27;, which is not YAML"),
    ],
)
def test_an_impossible_value_is_refused_and_nothing_is_trained(trainer, parameter, value, message):
    trainer.parameter.value = parameter
    trainer.value.value = value
    trainer.start.click()
    assert trainer.message.value.startswith(message)
    assert trainer.attempts == {} and not trainer.start.disabled
