"""What the lab's notebook shows: trained networks to play with, and a small one to train.

The widgets hold no results of their own: what is shown follows from what is chosen.
"""

import asyncio
import html
import io
import time
from collections.abc import Callable
from typing import get_args

import ipywidgets
import numpy as np
import pandas as pd
import yaml
from PIL import Image, UnidentifiedImageError

from busi.config import RunConfig, StudyError, validated
from busi.dataset.catalog import Catalog
from busi.lab import live
from busi.lab.networks import Case, Variant, picture
from busi.protocols import THRESHOLDS
from busi.report import display, figures

NOTHING = "–"
"""Chosen where no second variant is wanted."""

CHANGES = (
    *("learning_rate", "optimizer", "loss", "preprocessing", "upsampling", "batch_size", "base_filters"),
    *("image_size", "schedule", "seed"),
)
"""`RunConfig` fields that `Trainer` offers to change."""

SMALL = {"protocol": "heldout", "image_size": 64, "base_filters": 8, "epochs": 20}
"""What `Trainer` trains: seconds an epoch on BUSI, less on phantoms."""

REDRAW_SECONDS = 1.0
"""Between two drawings of a loss curve that moves."""

# Controls wrap on a narrow screen instead of leaving it.
_ROW = ipywidgets.Layout(flex_flow="row wrap", align_items="center")
_NARROW = ipywidgets.Layout(width="auto")
_WIDE = ipywidgets.Layout(width="22rem", max_width="calc(100% - 4px)")
_TEXT = {"description_width": "5.5rem"}
_FITTING = "<style>.busi-lab img { max-width: 100%; height: auto; } .busi-lab figure { margin: 0.5rem 0; }</style>"


class Explorer(ipywidgets.VBox):
    """An image under one trained variant, or two: outlines, probability map, Dice at a threshold.

    The images can be ordered from the worst Dice of the first variant to the best, and walked through. A variant's
    network is one that the image was held out from, where there is one.

    Args:
        data: The images.
        variants: As `busi.lab.networks.variants`, at least one.

    Attributes:
        variant: Chooses the first variant.
        other: Chooses the second one, or `NOTHING`.
        image: Chooses the image.
        worst_first: Whether the images held out from ``variant`` stand from its worst to its best; else all as listed.
        previous: Goes back by an image.
        following: Goes on by one.
        threshold: Above 0 and below 1; moves to the network's own when another variant is chosen.
        file: Takes an image file, which is then shown in place of the data set's until another of those is chosen.
        shown: The figure, HTML.
        message: What went wrong, or nothing.
    """

    def __init__(self, data: Catalog, variants: dict[str, Variant]):
        self._data, self._variants = data, variants
        self._foreign: tuple[str, np.ndarray] | None = None
        self._adjusting = False
        self.variant = ipywidgets.Dropdown(options=list(variants), description="Variant", layout=_WIDE, style=_TEXT)
        self.other = ipywidgets.Dropdown(
            options=[NOTHING, *variants], description="beside it", layout=_WIDE, style=_TEXT
        )
        self.image = ipywidgets.Dropdown(options=list(data.table.name), description="Image", layout=_WIDE, style=_TEXT)
        self.worst_first = ipywidgets.Checkbox(description="Worst first", indent=False, layout=_NARROW)
        self.previous = ipywidgets.Button(icon="arrow-left", tooltip="Previous image", layout={"width": "3rem"})
        self.following = ipywidgets.Button(icon="arrow-right", tooltip="Next image", layout={"width": "3rem"})
        self.threshold = ipywidgets.FloatSlider(
            **{"value": 0.5, "min": THRESHOLDS[0], "max": THRESHOLDS[-1], "step": 0.01, "continuous_update": False},
            **{"description": "Threshold", "layout": _WIDE, "style": _TEXT},
        )
        self.file = ipywidgets.FileUpload(accept="image/*", description="Another image", layout=_NARROW)
        self.shown, self.message = ipywidgets.HTML(), ipywidgets.HTML()
        for widget, adjust in (
            *((self.variant, self._variant_chosen), (self.worst_first, self._order), (self.image, self._image_chosen)),
            *((self.file, self._file_given), (self.other, None), (self.threshold, None)),
        ):
            widget.observe(lambda change, adjust=adjust: self._react(adjust), "value")
        self.previous.on_click(lambda button: self._walk(-1))
        self.following.on_click(lambda button: self._walk(1))
        super().__init__(
            [
                *(ipywidgets.HTML(_FITTING), ipywidgets.Box([self.variant, self.other], layout=_ROW)),
                ipywidgets.Box([self.image, self.previous, self.following, self.worst_first, self.file], layout=_ROW),
                *(self.threshold, self.message, self.shown),
            ]
        )
        self.add_class("busi-lab")
        self._react(self._variant_chosen)

    @property
    def cases(self) -> dict[str, Case]:
        """What is shown, by variant."""
        labels = dict.fromkeys([self.variant.value, self.other.value])
        image = (*self._foreign, None) if self._foreign else (self.image.value, *picture(self._data, self.image.value))
        return {
            label: self._variants[label].case(*image, threshold=self.threshold.value)
            for label in labels
            if label != NOTHING
        }

    def _react(self, adjust: Callable[[], None] | None) -> None:
        """Let what has changed change other widgets, then draw once."""
        if self._adjusting:
            return
        self._adjusting, self.message.value = True, ""
        try:
            if adjust:
                adjust()
            self._draw()
        except StudyError as error:
            self.message.value = html.escape(str(error))
        finally:
            self._adjusting = False

    def _variant_chosen(self) -> None:
        self._order()
        self.threshold.value = self._variants[self.variant.value].network(self.image.value).threshold

    def _image_chosen(self) -> None:
        self._foreign = None

    def _file_given(self) -> None:
        file = self.file.value[0]
        try:
            with Image.open(io.BytesIO(file["content"])) as image:
                self._foreign = file["name"], np.asarray(image.convert("L"))
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise StudyError(f"{file['name']}: not a readable image; give a PNG or JPEG") from error

    def _order(self) -> None:
        if self.worst_first.value:
            scored = self._variants[self.variant.value].per_image.dropna(subset="dice").sort_values("dice")
            self.image.options = [(f"{row.dice:.3f}  {row.name}", row.name) for row in scored.itertuples(index=False)]
        else:
            chosen, self.image.options = self.image.value, list(self._data.table.name)
            self.image.value = chosen

    def _walk(self, step: int) -> None:
        self.image.index = (self.image.index + step) % len(self.image.options)

    def _draw(self) -> None:
        cases = self.cases
        name = next(iter(cases.values())).name
        told = f"{name}. {'; '.join(f'{label}: {case.described}' for label, case in cases.items())}."
        figure = figures.cases(cases)
        self.shown.value = display.figure(figure, caption=told, alt=told, raster=True).data


class Trainer(ipywidgets.VBox):
    """A small held-out network that is trained while its loss is drawn, one hyper-parameter changed at will.

    Attempts stay in the figure, so that they can be compared. Nothing is stored.

    Args:
        data: The images.

    Attributes:
        parameter: Chooses one of `CHANGES`.
        value: What it is set to, as in YAML.
        epochs: How many are trained.
        start: Starts training.
        stop: Ends it after the step at hand.
        progress: Epochs that are done.
        shown: The figure, HTML.
        message: What went wrong, or where training is.
        attempts: "learning_rate 0.1" -> rows of `busi.lab.live.training`.
    """

    def __init__(self, data: Catalog):
        self._data, self._stopped = data, False
        self.attempts: dict[str, pd.DataFrame] = {}
        self.parameter = ipywidgets.Dropdown(options=CHANGES, description="Change", layout=_WIDE, style=_TEXT)
        self.value = ipywidgets.Combobox(description="to", layout=_WIDE, style=_TEXT)
        self.epochs = ipywidgets.BoundedIntText(
            value=SMALL["epochs"], min=1, max=1000, description="Epochs", layout={"width": "11rem"}, style=_TEXT
        )
        self.start = ipywidgets.Button(description="Train", icon="play", button_style="primary", layout=_NARROW)
        self.stop = ipywidgets.Button(description="Stop", icon="stop", disabled=True, layout=_NARROW)
        self.progress = ipywidgets.FloatProgress(layout=_WIDE)
        self.shown, self.message = ipywidgets.HTML(), ipywidgets.HTML()
        self.parameter.observe(self._offer, "value")
        self.start.on_click(self._start)
        self.stop.on_click(self._stop)
        super().__init__(
            [
                *(ipywidgets.HTML(_FITTING), ipywidgets.Box([self.parameter, self.value], layout=_ROW)),
                ipywidgets.Box([self.epochs, self.start, self.stop, self.progress], layout=_ROW),
                *(self.message, self.shown),
            ]
        )
        self.add_class("busi-lab")
        self._offer()

    @property
    def config(self) -> RunConfig:
        """What would be trained.

        Raises:
            StudyError: The value is none that the parameter takes.
        """
        try:
            value = yaml.safe_load(self.value.value)
        except yaml.YAMLError as error:
            raise StudyError(f"{self.parameter.value}: got {self.value.value!r}, which is not YAML") from error
        changed = {self.parameter.value: value, "epochs": self.epochs.value}
        return validated(RunConfig, "training", SMALL | changed)

    async def train(self, config: RunConfig) -> None:
        """Train ``config`` and draw it on the way; the kernel can do other things between two steps."""
        label = f"{self.parameter.value} {self.value.value}"
        self._stopped, self.start.disabled, self.stop.disabled = False, True, False
        self.progress.value, self.progress.max = 0, config.epochs
        self.message.value = "Building the network …"
        rows, drawn = [], 0.0
        try:
            await asyncio.sleep(0.1)  # for the message to be seen
            for row in live.training(config, self._data):
                rows.append(row)
                self.progress.value = row["epoch"]
                if time.monotonic() - drawn > REDRAW_SECONDS:
                    self._draw(label, rows)
                    drawn = time.monotonic()
                await asyncio.sleep(0)  # lets Stop through
                if self._stopped:
                    break
            self._draw(label, rows)
        finally:
            self.start.disabled, self.stop.disabled = False, True

    def _offer(self, change=None) -> None:
        field = self.parameter.value
        annotation = RunConfig.model_fields[field].annotation
        self.value.options = get_args(annotation)
        self.value.value = str(getattr(RunConfig(**SMALL), field))

    def _start(self, button) -> None:
        try:
            config = self.config
        except StudyError as error:
            self.message.value = html.escape(str(error))
            return
        self._task = asyncio.get_running_loop().create_task(self.train(config))  # kept: else it may be collected

    def _stop(self, button) -> None:
        self._stopped = True

    def _draw(self, label: str, rows: list[dict]) -> None:
        found = pd.DataFrame(rows)
        self.attempts[label] = found.reindex(columns=["step", "epoch", "loss", "validation_dice"])
        reached = found.get("validation_dice", pd.Series(dtype=float)).dropna()
        dice = f", Dice on the validation part {reached.iloc[-1]:.3f}" if len(reached) else ""
        self.message.value = (
            f"{html.escape(label)}: {found.epoch.iloc[-1]:.1f} epochs, loss {found.loss.iloc[-1]:.4f}{dice}"
        )
        self.shown.value = display.figure(
            figures.training(self.attempts),
            caption="Loss of each step, and Dice after each epoch.",
            alt=self.message.value,
        ).data
