"""Widgets of the notebook `explore`: one to compare trained networks, one to train a small network.

The widgets hold no results: what they show is computed from what is chosen.
"""

import asyncio
import html
import io
import time
from collections.abc import Callable, Sequence
from typing import get_args

import ipywidgets
import numpy as np
import pandas as pd
import yaml

from busi import display
from busi.config import RunConfig, StudyError, validate
from busi.dataset.catalog import Catalog, read_grey
from busi.lab import live
from busi.lab.networks import Case, Variant
from busi.report import figures
from busi.selection import THRESHOLDS

NOTHING = "–"
"""Option for no second variant."""

CHANGES = (
    *("learning_rate", "optimizer", "loss", "preprocessing", "upsampling"),
    *("batch_size", "base_filters", "image_size", "schedule", "seed"),
)
"""`RunConfig` fields that `Trainer` offers to change."""

SMALL = {"protocol": "heldout", "image_size": 64, "base_filters": 8, "epochs": 20}
"""Configuration that `Trainer` starts from: an epoch takes seconds on BUSI, less on phantoms."""

REDRAW_SECONDS = 1.0
"""Shortest time in seconds between two drawings of a loss curve during training."""

# Controls wrap on a narrow screen instead of leaving it.
_ROW = ipywidgets.Layout(flex_flow="row wrap", align_items="center")
_NARROW = ipywidgets.Layout(width="auto")
_WIDE = ipywidgets.Layout(width="22rem", max_width="calc(100% - 4px)")
_LABEL = {"description_width": "5.5rem"}
_IMAGE_CSS = "<style>.busi-lab img { max-width: 100%; height: auto; } .busi-lab figure { margin: 0.5rem 0; }</style>"


class Explorer(ipywidgets.VBox):
    """Widget that shows an image under one or two trained variants: outlines, probability map, Dice at a threshold.

    One can step through the images, also ordered by the Dice of the first variant. An image of the data set is given to
    a network that held it out, if there is one.

    Args:
        catalog: The images.
        variants: As `busi.lab.networks.find_variants`, at least one.

    Attributes:
        other: Chooses the second variant, or `NOTHING`.
        worst_first: Lists the lesion images that ``variant`` held out, from the worst Dice to the best, instead of all.
        threshold: Above 0 and below 1; set to the network's own threshold when another variant is chosen.
        file: Takes an image file, which is shown until an image of the data set is chosen.
        message: What went wrong, or nothing.
    """

    def __init__(self, catalog: Catalog, variants: dict[str, Variant]):
        self._catalog = catalog
        self._variants = variants
        self._foreign: tuple[str, np.ndarray] | None = None
        self._adjusting = False
        self._make_choices()
        self.previous = ipywidgets.Button(icon="arrow-left", tooltip="Previous image", layout={"width": "3rem"})
        self.following = ipywidgets.Button(icon="arrow-right", tooltip="Next image", layout={"width": "3rem"})
        self.shown = ipywidgets.HTML()
        self.message = ipywidgets.HTML()
        self._connect()
        variant_row = ipywidgets.Box([self.variant, self.other], layout=_ROW)
        image_choices = [self.image, self.previous, self.following, self.worst_first, self.file]
        image_row = ipywidgets.Box(image_choices, layout=_ROW)
        css = ipywidgets.HTML(_IMAGE_CSS)
        super().__init__([css, variant_row, image_row, self.threshold, self.message, self.shown])
        self.add_class("busi-lab")
        self._react(self._adjust_to_variant)

    @property
    def cases(self) -> dict[str, Case]:
        """Return the cases that are shown, by variant."""
        labels = [self.variant.value]
        if self.other.value not in (NOTHING, self.variant.value):
            labels.append(self.other.value)
        return {label: self._ask(self._variants[label]) for label in labels}

    def _make_choices(self) -> None:
        labels = list(self._variants)
        names = list(self._catalog.table.name)
        self.variant = _choose_from(labels, "Variant")
        self.other = _choose_from([NOTHING, *labels], "beside it")
        self.image = _choose_from(names, "Image")
        self.worst_first = ipywidgets.Checkbox(description="Worst first", indent=False, layout=_NARROW)
        # With continuous updates, every value passed while dragging the slider would be drawn.
        self.threshold = ipywidgets.FloatSlider(
            value=0.5,
            min=THRESHOLDS[0],
            max=THRESHOLDS[-1],
            step=0.01,
            continuous_update=False,
            description="Threshold",
            layout=_WIDE,
            style=_LABEL,
        )
        self.file = ipywidgets.FileUpload(accept="image/*", description="Another image", layout=_NARROW)

    def _connect(self) -> None:
        self.variant.observe(lambda change: self._react(self._adjust_to_variant), "value")
        self.worst_first.observe(lambda change: self._react(self._list_images), "value")
        self.image.observe(lambda change: self._react(self._leave_file), "value")
        self.file.observe(lambda change: self._react(self._read_file), "value")
        self.other.observe(lambda change: self._react(), "value")
        self.threshold.observe(lambda change: self._react(), "value")
        self.previous.on_click(lambda button: self._walk(-1))
        self.following.on_click(lambda button: self._walk(1))

    def _ask(self, variant: Variant) -> Case:
        threshold = self.threshold.value
        if self._foreign:
            name, pixels = self._foreign
            return variant.foreign_case(name, pixels, threshold)
        return variant.case(self.image.value, threshold)

    def _react(self, adjust: Callable[[], None] | None = None) -> None:
        """Adjust other widgets to a change, then draw once."""
        # Adjusting a widget is itself a change, which calls this method again.
        if self._adjusting:
            return
        self._adjusting = True
        self.message.value = ""
        try:
            if adjust:
                adjust()
            self._draw()
        except StudyError as error:
            self.message.value = html.escape(str(error))
        finally:
            self._adjusting = False

    def _adjust_to_variant(self) -> None:
        self._list_images()
        variant = self._variants[self.variant.value]
        self.threshold.value = variant.find_run(self.image.value).threshold

    def _leave_file(self) -> None:
        self._foreign = None

    def _read_file(self) -> None:
        file = self.file.value[0]
        pixels = read_grey(file["name"], io.BytesIO(file["content"]))
        # Set last, so that a file that cannot be read changes nothing on display.
        self._foreign = file["name"], pixels

    def _list_images(self) -> None:
        if self.worst_first.value:
            scores = self._variants[self.variant.value].scores
            lesions = scores.dropna(subset="dice").sort_values("dice")
            self.image.options = [(f"{row.dice:.3f}  {row.name}", row.name) for row in lesions.itertuples(index=False)]
        else:
            # Setting new options selects the first image.
            chosen = self.image.value
            self.image.options = list(self._catalog.table.name)
            self.image.value = chosen

    def _walk(self, step: int) -> None:
        # After the last image comes the first one.
        self.image.index = (self.image.index + step) % len(self.image.options)

    def _draw(self) -> None:
        cases = self.cases
        name = cases[self.variant.value].name
        descriptions = [f"{label}: {case.description}" for label, case in cases.items()]
        text = f"{name}. {'; '.join(descriptions)}."
        # Raster, because with these images an SVG would have some megabytes.
        self.shown.value = display.figure(figures.cases(cases), caption=text, alt=text, raster=True).data


def _choose_from(options: Sequence[str], description: str) -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(options=options, description=description, layout=_WIDE, style=_LABEL)


class Trainer(ipywidgets.VBox):
    """Widget that trains a small held-out network with one hyper-parameter changed, and draws its loss meanwhile.

    Earlier attempts stay in the figure for comparison. Nothing is stored.

    Attributes:
        parameter: Chooses one of `CHANGES`.
        value: Value of the parameter, as in YAML.
        stop: Ends training after the current step.
        message: What went wrong, or how far training has come.
        attempts: Label, e.g. "learning_rate 0.1" -> rows of `busi.lab.live.training`.
    """

    def __init__(self, catalog: Catalog):
        self._catalog = catalog
        self._stopped = False
        self.attempts: dict[str, pd.DataFrame] = {}
        self.parameter = _choose_from(CHANGES, "Change")
        self.value = ipywidgets.Combobox(description="to", layout=_WIDE, style=_LABEL)
        self.epochs = ipywidgets.BoundedIntText(
            value=SMALL["epochs"], min=1, max=1000, description="Epochs", layout={"width": "11rem"}, style=_LABEL
        )
        self.start = ipywidgets.Button(description="Train", icon="play", button_style="primary", layout=_NARROW)
        self.stop = ipywidgets.Button(description="Stop", icon="stop", disabled=True, layout=_NARROW)
        self.progress = ipywidgets.FloatProgress(layout=_WIDE)
        self.shown = ipywidgets.HTML()
        self.message = ipywidgets.HTML()
        self.parameter.observe(self._offer_values, "value")
        self.start.on_click(self._start)
        self.stop.on_click(self._stop)
        choice_row = ipywidgets.Box([self.parameter, self.value], layout=_ROW)
        training_row = ipywidgets.Box([self.epochs, self.start, self.stop, self.progress], layout=_ROW)
        css = ipywidgets.HTML(_IMAGE_CSS)
        super().__init__([css, choice_row, training_row, self.message, self.shown])
        self.add_class("busi-lab")
        self._offer_values()

    @property
    def config(self) -> RunConfig:
        """Return the configuration to train.

        Raises:
            StudyError: The parameter does not take the value.
        """
        name = self.parameter.value
        text = self.value.value
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise StudyError(f"{name}: got {text!r}, which is not YAML") from error
        return validate(RunConfig, "training", SMALL | {name: value, "epochs": self.epochs.value})

    async def train(self, config: RunConfig) -> None:
        """Train ``config`` and draw its progress; the kernel stays free for other work between two steps."""
        label = f"{self.parameter.value} {self.value.value}"
        self._stopped = False
        self.start.disabled = True
        self.stop.disabled = False
        self.progress.value = 0
        self.progress.max = config.epochs
        self.message.value = "Building the network …"
        rows = []
        drawn = 0.0
        try:
            # Building the network blocks the kernel: the message has to be sent before that.
            await asyncio.sleep(0.1)
            for row in live.training(config, self._catalog):
                rows.append(row)
                self.progress.value = row["epoch"]
                if time.monotonic() - drawn > REDRAW_SECONDS:
                    self._draw(label, rows)
                    drawn = time.monotonic()
                # Clicks, such as the one on Stop, are handled here.
                await asyncio.sleep(0)
                if self._stopped:
                    break
            self._draw(label, rows)
        except StudyError as error:
            self.message.value = html.escape(str(error))
        finally:
            self.start.disabled = False
            self.stop.disabled = True

    def _offer_values(self, change=None) -> None:
        field = self.parameter.value
        annotation = RunConfig.model_fields[field].annotation
        # Only parameters with a fixed set of values have options; others take what is typed.
        default = getattr(RunConfig(**SMALL), field)
        self.value.options = get_args(annotation)
        self.value.value = str(default)

    def _start(self, button) -> None:
        try:
            config = self.config
        except StudyError as error:
            self.message.value = html.escape(str(error))
            return
        # Python may garbage-collect a task that nothing refers to.
        self._task = asyncio.get_running_loop().create_task(self.train(config))

    def _stop(self, button) -> None:
        self._stopped = True

    def _draw(self, label: str, rows: list[dict]) -> None:
        # Named here, because before the end of the first epoch no row has a Dice.
        steps = pd.DataFrame(rows, columns=["step", "epoch", "loss", "validation_dice"])
        self.attempts[label] = steps
        last = steps.iloc[-1]
        progress = f"{label}: {last.epoch:.1f} epochs, loss {last.loss:.4f}"
        dice = steps.validation_dice.dropna()
        if len(dice):
            progress += f", Dice on the validation part {dice.iloc[-1]:.3f}"
        self.message.value = html.escape(progress)
        figure = figures.training(self.attempts)
        caption = "Loss of each step, and Dice after each epoch."
        self.shown.value = display.figure(figure, caption=caption, alt=progress).data
