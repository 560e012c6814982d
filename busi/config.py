"""Typed parameters of one run and of a whole study, and how both are read from ``params/*.yaml``.

A parameter that is unknown, of the wrong type or incompatible with another one stops the study with a `StudyError` that
names it, before any image is read and anything is trained or written.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from yaml.constructor import ConstructorError

PROTOCOLS = ("published", "heldout")

PUBLISHED_LOSSES = ("bce", "kld", "dice")
"""Losses of the published protocol, whose runs are judged against the lowest loss that a constant output reaches."""

SECOND = "second"
"""Name of the groups of held-out runs at a profile's second size."""

RECIPE = "recipe"
"""Name of the section that has a parameter file of its own, ``params/recipe.yaml``."""

GALLERY = "gallery"
"""Stem of the notebook that shows images of the data set, and of its page."""

FOLDS = 5
"""Number of folds of the cross-validation."""

BORDER = 184
"""Pixels by which the unpadded network's output is smaller than its input, in height and in width: 300 gives 116."""

CONSTANT_SPREAD = 1e-6
"""Largest spread (highest minus lowest value over pixels and images) at which an output counts as constant."""

CONSTANT_EPOCHS = 10
"""Epochs of constant output, with a loss that has settled, after which a published run ends."""

SETTLED = 1e-5
"""Largest difference between the losses of `CONSTANT_EPOCHS` epochs at which a loss has settled: a tenth of the last
digit that is published."""

DECAYS = 48.525
"""Number of times the published rate decays by 0.96: once every 1,000 of the 48,525 steps (75 epochs of 647 images)."""


class StudyError(ValueError):
    """An error that the user can fix. It names the file or parameter, what was found, what was expected, what to do."""

    exit_code = 1


def find_study_folder() -> Path:
    """Return the study's folder: the current folder or its nearest parent that holds ``params/`` and ``notebooks/``.

    What counts is the folder from which a command or a notebook is started, not where the package is installed, so that
    one environment serves any number of checkouts.

    Raises:
        StudyError: Neither the current folder nor any of its parents is a study's folder.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params").is_dir() and (folder / "notebooks").is_dir():
            return folder
    raise StudyError(
        f"{here}: not inside a study, which is a folder with params/ and notebooks/; "
        "change to your checkout of the study first"
    )


class _Strict(BaseModel):
    # YAML reads `1e-4` as text and `yes` as true; strict validation lets neither slip through as a number.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Size(_Strict):
    """Size of a run: the settings that a profile decides and a variant normally leaves alone.

    Attributes:
        image_size: Height and width of the network's input in pixels, which has to divide evenly at every pooling:
            188 + 16 k pixels without padding, 16 + 16 k with it. Published: 300.
        base_filters: Filters of the first convolution; the bottleneck has 16 times as many. Published: 64.
        epochs: Passes over the training images. Published: 75.
        precision: Keras dtype policy of the network. Under either, logits and loss are computed in float32.
    """

    image_size: Annotated[int, Field(ge=16)] = 300
    base_filters: Annotated[int, Field(ge=2, multiple_of=2)] = 64
    epochs: Annotated[int, Field(ge=1)] = 75
    precision: Literal["float32", "mixed_bfloat16"] = "float32"

    @property
    def size_name(self) -> str:
        """Return the size as text for folder names and people, e.g. "300px-16f-75e-bfloat16"."""
        suffix = "" if self.precision == "float32" else "-bfloat16"
        return f"{self.image_size}px-{self.base_filters}f-{self.epochs}e{suffix}"


def check_image_size(image_size: int, padding: str) -> None:
    """Raise ValueError if a size does not divide evenly at four poolings, or leaves an unpadded network no output."""
    smallest = {"valid": 188, "same": 16}[padding]
    too_small = image_size < smallest
    if too_small or (image_size - smallest) % 16:
        steps = round((image_size - smallest) / 16)
        nearest = max(smallest, smallest + 16 * steps)
        raise ValueError(
            f"image_size: got {image_size}; with {padding!r} padding the network takes {smallest} + 16 k pixels: "
            f"use {nearest}"
        )


HELDOUT = {
    "masks": "all",
    "second_channel": "complement",
    "target": "aligned",
    "resize": "letterbox",
    "padding": "same",
    "bce": "probabilities",
    "clipped": False,
    "order": "by-class",
    "optimizer": "adam",
    "learning_rate": 0.001,
    "momentum": 0.0,
    "preprocessing": "standardize",
    "shuffle": True,
    "batch_size": 8,
    "split": "grouped",
    "patience": 10,
}
"""Defaults of held-out runs in place of the published ones: with the faults repaired, and with images held out.

Optimizer and preprocessing were chosen on a validation part, as ones with which networks learn. With the published
ones, families that vary something else would compare networks none of which does better than a constant output.
"""


class RunConfig(Size):
    """Complete settings of one training. The defaults are the published baseline (public notebook; Tables 1, 2 and 4).

    Under ``protocol="heldout"`` the defaults of `HELDOUT` take their place.

    Attributes:
        protocol: "published" or "heldout": decides how the run is trained and scored. Explained in
            docs/published-protocol.md and docs/heldout-protocol.md.
        upsampling: Layer that doubles height and width: "UpSampling2D" repeats pixels (published), "bilinear"
            interpolates, "Conv2DTranspose" is learned.
        upsampling_steps: Steps that use `upsampling`: the "first" of four (published), with Conv2DTranspose in the
            other three, or "all".
        optimizer: "sgd" or "adam", the latter with Keras' default betas.
        learning_rate: Initial learning rate.
        momentum: Momentum of SGD; must be 0 for Adam, which has none.
        schedule: "constant"; "exponential": a continuous decay to 0.138 (0.96 ** 48.525) of the rate at the end of the
            planned epochs; over the published 75 epochs, the rate at a step is rate * 0.96 ** (step / 1000); or
            "cosine": a warm-up over a twentieth of the planned steps, then half a cosine down to 0.
        weight_decay: Decoupled weight decay (AdamW): each step subtracts this times the rate times the weight.
        average: Momentum of an exponential moving average of the weights, which validation and prediction use in their
            place; 0 for none.
        loss: "bce" and "kld" average over the pixels of both channels. "dice" is computed over both channels of a
            whole batch (published), "lesion-dice" over the lesion channel alone; "lesion-dice+bce" adds "bce" to it.
        bce: Input of "bce". "logits": each logit of the softmax goes through a sigmoid of its own, which is what Keras
            on TensorFlow computes for BinaryCrossentropy after a softmax (published). "probabilities": the softmax's
            output.
        clipped: Whether "kld" and "dice" are Keras' functions of the probabilities (published), whose gradients vanish
            where the network is certain and wrong. If not, they are computed from the logits, and no gradient vanishes.
        order: Order of the images: "mixed", one permutation drawn from the seed (published: the order of a folder that
            holds both classes), or "by-class", as in the catalog: benign, then malignant.
        preprocessing: "none"; "normalize": scale each image to [0, 1] by its own minimum and maximum; "standardize":
            normalize, then subtract the training part's mean and divide by its standard deviation; "augment":
            standardize, then flip image and mask at random and change contrast and brightness; "augment-image": the
            same, but the mask is not flipped. "text": standardize each image by itself, then augment as "augment";
            "code": divide the scaled image by 255 again, then augment the image alone (the public notebook).
            "augment-strong": as "augment", then rotate, scale and shift image and mask together, and add speckle to
            the image.
        masks: "first" reads `*_mask.png` only (published); "all" takes the union of an image's masks.
        second_channel: Background for a lesion channel m: "mirror" is (m + 1) mod 2 (published), which is 1 + m where
            0 < m < 1; "complement" is 1 - m.
        target: "squeezed" resizes the whole mask to the output (published); "aligned" takes the part of the mask that
            the output covers.
        resize: "squash" to a square (published), or "letterbox": keep the aspect ratio and fill the rest with black.
        padding: Padding of the convolutions: "valid" (published), where the output covers the middle of the image, or
            "same", where it covers all of it.
        normalization: "none" (published), or "instance", which normalizes each feature map of each image after each
            3x3 convolution.
        residual: Whether the input of each pair of convolutions is added to its output (published: no).
        normals: Whether images without a lesion are trained on, too (published: no).
        flip_test: Whether a prediction is the mean of those for the image and for its mirror image (published: no).
        largest_component: Whether only the largest connected region of a predicted mask is kept.
        shuffle: Whether the images are drawn in a new order every epoch (published: no, always in the same order).
        batch_size: Images in a step; published: 1.
        split: "none": trained and scored on all lesion images (published); "grouped": five folds that keep
            near-duplicates together; "random": five folds that do not; "blocked": five folds of images with
            neighbouring numbers within a class, which often show one patient.
        fold: Fold of the cross-validation; 0 if there is no split.
        patience: Epochs without a better validation score after which training ends; 0 disables this.
        last_steps: Steps after which the last epoch is cut short, as in the published log; 0 for a whole epoch.
        seed: Seed of initialisation, order, augmentation and shuffling.
    """

    protocol: Literal["published", "heldout"] = "published"
    upsampling: Literal["UpSampling2D", "bilinear", "Conv2DTranspose"] = "UpSampling2D"
    upsampling_steps: Literal["first", "all"] = "first"
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    schedule: Literal["constant", "exponential", "cosine"] = "constant"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    loss: Literal["bce", "kld", "dice", "lesion-dice", "lesion-dice+bce"] = "bce"
    bce: Literal["logits", "probabilities"] = "logits"
    clipped: bool = True
    order: Literal["mixed", "by-class"] = "mixed"
    preprocessing: Literal[
        "none", "normalize", "standardize", "augment", "augment-image", "augment-strong", "text", "code"
    ] = "none"
    masks: Literal["first", "all"] = "first"
    second_channel: Literal["mirror", "complement"] = "mirror"
    target: Literal["squeezed", "aligned"] = "squeezed"
    resize: Literal["squash", "letterbox"] = "squash"
    padding: Literal["valid", "same"] = "valid"
    normalization: Literal["none", "instance"] = "none"
    residual: bool = False
    normals: bool = False
    flip_test: bool = False
    largest_component: bool = False
    shuffle: bool = False
    batch_size: Annotated[int, Field(ge=1)] = 1
    split: Literal["none", "grouped", "random", "blocked"] = "none"
    fold: Annotated[int, Field(ge=0, lt=FOLDS)] = 0
    patience: Annotated[int, Field(ge=0)] = 0
    last_steps: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _fill_in_protocol_defaults(cls, values: dict[str, Any]):
        # Before validation, so that these defaults are checked like values that were given.
        return HELDOUT | values if values.get("protocol") == "heldout" else values

    @model_validator(mode="after")
    def _check_combinations(self):
        if self.optimizer == "adam" and self.momentum:
            raise ValueError(f"momentum: got {self.momentum} with optimizer adam, which has none: set momentum to 0")
        check_image_size(self.image_size, self.padding)
        if self.protocol == "published" and self.loss not in PUBLISHED_LOSSES:
            raise ValueError(
                f"loss: got {self.loss!r} under protocol 'published'; it takes {', '.join(PUBLISHED_LOSSES)}: set "
                "protocol to heldout for this one"
            )
        if self.residual and self.padding == "valid":
            raise ValueError(
                "residual: got true with padding 'valid', under which outputs are smaller than what is added to them: "
                "set padding to same"
            )
        if self.preprocessing == "augment-strong" and self.padding == "valid":
            raise ValueError(
                "preprocessing: got augment-strong with padding 'valid', under which the target does not cover the "
                "image and cannot be moved with it: set padding to same"
            )
        if self.average and (self.protocol == "published" or self.last_steps):
            raise ValueError(
                f"average: got {self.average}; it needs protocol heldout, whose validation part chooses among the "
                "averages, and last_steps 0: set average to 0"
            )
        self._refuse_what_has_no_effect()
        # A held-out run without a split would be tested on what it was trained on.
        if (self.protocol == "heldout") != (self.split != "none"):
            raise ValueError(
                f"split: got {self.split!r} under protocol {self.protocol!r}; 'heldout' takes grouped, random or "
                "blocked, 'published' none"
            )
        if self.split == "none" and (self.fold or self.patience):
            raise ValueError("fold, patience: need a split that holds images out; set both to 0")
        return self

    def _refuse_what_has_no_effect(self) -> None:
        """Raise ValueError for a setting that the protocol does not use: it would change the name, not the numbers."""
        reasons = {}
        if self.protocol == "heldout":
            reasons["order"] = "which draws its order from shuffle and seed"
        else:
            reasons["normals"] = "which trains only on images with a lesion"
            reasons["largest_component"] = "which scores pixels, not masks"
        # A field that a protocol does not use has to stay at its default.
        for name, reason in reasons.items():
            value = getattr(self, name)
            if value != self._defaults[name]:
                raise ValueError(f"{name}: got {value!r} under protocol {self.protocol!r}, {reason}: leave it out")

    @property
    def _defaults(self) -> dict[str, Any]:
        """Return the defaults of the run's protocol."""
        defaults = {name: info.default for name, info in RunConfig.model_fields.items()}
        return defaults | HELDOUT if self.protocol == "heldout" else defaults

    @property
    def output_size(self) -> int:
        """Return the height and width of the network's output in pixels."""
        return self.image_size if self.padding == "same" else self.image_size - BORDER

    @property
    def name(self) -> str:
        """Return the settings that differ from the protocol's baseline: "baseline", "loss-kld", ..."""
        # The label gives these beside the name.
        not_named = {*Size.model_fields, "protocol", "fold", "seed"}
        if self.optimizer == "adam":
            not_named.add("momentum")  # Adam has none: 0 says nothing new
        parts = []
        # In the order of the fields, so that equal settings give equal names.
        for field, default in self._defaults.items():
            value = getattr(self, field)
            if field not in not_named and value != default:
                parts.append(f"{field}-{value}")
        return "_".join(parts) or "baseline"

    @property
    def label(self) -> str:
        """Return the run's name within a profile, e.g. "published/300px-16f-75e/loss-kld/fold0-seed0"."""
        return f"{self.protocol}/{self.size_name}/{self.name}/fold{self.fold}-seed{self.seed}"

    def digest(self, *extra: str, without: frozenset[str] = frozenset()) -> str:
        """Return eight hexadecimal digits that change with every field not in ``without`` and with ``extra``.

        Fields at their default are left out, so that a field added later does not change the digests of earlier runs.
        """
        # Sorted, because the order in which fields are declared does not matter.
        content = json.dumps([self.model_dump(exclude=set(without), exclude_defaults=True), *extra], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:8]


Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Folds = Annotated[list[Annotated[int, Field(ge=0, lt=FOLDS)]], Field(min_length=1)]
Variants = dict[str, dict[str, Any]]


class Parameters(Size):
    """Parameters of a study or of one of its notebooks: a profile (how big) and a family (what is compared).

    Attributes:
        profile: Name of the profile, whose file is ``params/<profile>.yaml``; also the folder of its runs.
        report: Folder under ``reports/`` that results go to; if empty, it has the profile's name.
        data_dir: Folder of images, or "phantom" for the synthetic images drawn into ``data/phantom``. May be empty
            where nothing is trained.
        layout: How the files of `data_dir` are named and paired: a layout of `busi.dataset.layouts`, a CSV file in the
            folder, or a pattern, e.g. "scans/{key} | outlines/{key}_lesion". If empty, it is detected from the files.
        external_dir: Folder of another data set, on which the networks are tested as well; empty for no such test.
        runs_dir: Folder of finished and unfinished runs.
        seeds: Seeds of the published runs; each variant is trained once for each seed.
        settings: `RunConfig` fields set for every published variant, e.g. ``{masks: all}``.
        family: Name of the experiment, whose file is ``params/<family>.yaml``; empty for notebooks that compare
            nothing.
        variants: Label in the table -> `RunConfig` fields that differ from the baseline, and `seed_offset`, which is
            added to every seed (for a variant that repeats another one's configuration).
        heldout: `RunConfig` fields of every held-out run: its size and its baseline. Its `epochs` are an upper limit,
            because `patience` may end a run earlier.
        heldout_variants: As `variants`, for the held-out protocol.
        heldout_seeds: Seeds of the held-out runs; each variant is trained once for each seed and fold.
        folds: Folds of the cross-validation to run, each with its own initialisation and augmentation.
        second_size: `RunConfig` fields in which a second set of held-out runs differs, to see whether the verdicts
            stay the same; empty for no second set.
        second_seeds: As `heldout_seeds`, at the second size.
        second_variants: Labels of the `heldout_variants` that are trained at the second size.
        runs_per_job: Runs that one process of the study trains one after another; more than one where starting a
            process takes longer than training.
        train_missing: Whether missing runs are trained. If not, the results that the report has are read, and no data
            are needed.
        show_pixels: Whether pages may show images of the data set. If not given, they show only those of phantoms.
    """

    profile: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")] = "smoke"
    report: Annotated[str, Field(pattern=r"^[a-z0-9_-]*$")] = ""
    data_dir: str = ""
    layout: str = ""
    external_dir: str = ""
    runs_dir: str = "runs"
    seeds: Seeds = [0]
    settings: dict[str, Any] = {}
    family: str = ""
    variants: Variants = {}
    heldout: dict[str, Any] = {}
    heldout_variants: Variants = {}
    heldout_seeds: Seeds = [0]
    folds: Folds = list(range(FOLDS))
    second_size: dict[str, Any] = {}
    second_seeds: Seeds = [0]
    second_variants: list[str] = []
    runs_per_job: Annotated[int, Field(ge=1)] = 1
    train_missing: bool = True
    show_pixels: bool = False

    @model_validator(mode="before")
    @classmethod
    def _show_phantoms(cls, values: dict[str, Any]):
        # Follows the data, not the profile: no other data set is shown because its profile was meant for phantoms.
        return {"show_pixels": values.get("data_dir") == "phantom"} | values

    @model_validator(mode="after")
    def _check_image_size(self):
        padding = self.settings.get("padding", "valid")
        # Anything else is refused where the settings of a variant are checked.
        if padding in ("valid", "same"):
            check_image_size(self.image_size, padding)
        return self

    @property
    def data_path(self) -> Path:
        """Return the data folder; a relative path starts at the study's folder."""
        # Phantoms are drawn in the study's folder, once for all its profiles.
        if self.data_dir == "phantom":
            return find_study_folder() / "data" / "phantom"
        return find_study_folder() / Path(self.data_dir).expanduser()

    @property
    def external_path(self) -> Path:
        """Return the folder of the external data set; a relative path starts at the study's folder."""
        return find_study_folder() / Path(self.external_dir).expanduser()

    @property
    def runs_path(self) -> Path:
        """Return the folder of the profile's runs."""
        return find_study_folder() / Path(self.runs_dir).expanduser() / self.profile

    @property
    def report_path(self) -> Path:
        """Return the folder of the report: pages, tables, figures and results."""
        return find_study_folder() / "reports" / (self.report or self.profile)

    @property
    def results_path(self) -> Path:
        """Return the folder of everything that was measured."""
        return self.report_path / "results"

    @property
    def tables_path(self) -> Path:
        """Return the folder of the tables that the notebooks have computed from the results."""
        return self.report_path / "tables"

    @property
    def pages(self) -> list[str]:
        """Return the stems of the report's pages: the numbered notebooks, then the gallery if pixels may be shown."""
        stems = list_notebooks()
        if self.show_pixels and (find_study_folder() / "notebooks" / f"{GALLERY}.ipynb").is_file():
            stems.append(GALLERY)
        return stems

    def configs(self, protocol: str) -> dict[str, list[RunConfig]]:
        """Return each variant's runs under a protocol: one for each seed, or for each seed and fold of held-out runs.

        Args:
            protocol: One of `PROTOCOLS`, or `SECOND` for the held-out protocol at the second size; without a second
                size there are no such runs.

        Raises:
            StudyError: A variant, `settings`, `heldout` or `second_size` names an unknown field or gives an impossible
                value, or `second_variants` holds a label that is not in `heldout_variants`.
        """
        self._check_shared(protocol)
        # Start of messages about a variant.
        where = f"params/{self.family}.yaml: " if self.family else ""
        if protocol in ("heldout", SECOND):
            is_second = protocol == SECOND
            draws = heldout_draws(self.second_seeds if is_second else self.heldout_seeds, self.folds)
            variants = self._second_variants() if is_second else self.heldout_variants
            return expand_variants(variants, self.heldout_fields(protocol), draws, where)
        # Published runs hold nothing out: the runs of a variant differ only in their seeds.
        draws = [{"seed": seed} for seed in self.seeds]
        return expand_variants(self.variants, self._published_fields(), draws, where)

    def _check_shared(self, protocol: str) -> None:
        """Raise StudyError for a fault in what all variants of a protocol share, so that no variant is blamed."""
        for name in ("settings", "heldout", "second_size"):
            for field in getattr(self, name).keys() - RunConfig.model_fields:
                raise StudyError(f"{name}: unknown parameter {field!r}; known are {', '.join(RunConfig.model_fields)}")
        if protocol == "published":
            validate(RunConfig, "parameters", self._published_fields(), dict.fromkeys(self.settings, "settings"))
        else:
            origins = dict.fromkeys(self.second_size, "second_size") if protocol == SECOND else {}
            validate(RunConfig, "heldout", self.heldout_fields(protocol), origins)

    def _published_fields(self) -> dict[str, Any]:
        """Return the `RunConfig` fields that all published runs share."""
        return {field: getattr(self, field) for field in Size.model_fields} | self.settings

    def heldout_fields(self, protocol: str = "heldout") -> dict[str, Any]:
        """Return the `RunConfig` fields that all held-out runs share; `SECOND` adds those of the second size."""
        # Even where `heldout` does not mention it, held-out runs have the profile's precision.
        fields = {"protocol": "heldout", "precision": self.precision} | self.heldout
        return fields | self.second_size if protocol == SECOND else fields

    def _second_variants(self) -> Variants:
        if not self.second_size:
            return {}
        for label in self.second_variants:
            if label not in self.heldout_variants:
                known = ", ".join(self.heldout_variants)
                raise StudyError(f"second_variants: got {label!r}; expected labels of heldout_variants: {known}")
        return {label: self.heldout_variants[label] for label in self.second_variants}


def heldout_draws(seeds: list[int], folds: list[int]) -> list[dict[str, int]]:
    """Return the fold and the seed of each held-out run of a variant.

    Split, initialisation and augmentation vary together: every fold has seeds of its own.
    """
    return [{"fold": fold, "seed": seed * FOLDS + fold} for seed in seeds for fold in folds]


def expand_variants(
    variants: Variants, shared: dict[str, Any], draws: list[dict[str, int]], where: str = ""
) -> dict[str, list[RunConfig]]:
    """Return the runs of each variant, one for each draw: the shared fields, overridden by its own and by the draw's.

    Args:
        variants: Label -> `RunConfig` fields and `seed_offset`.
        shared: `RunConfig` fields of all variants.
        draws: `seed` of each run, and under a split its `fold`.
        where: Start of error messages: the place in a file that the variants come from.

    Raises:
        StudyError: A field is unknown, has an impossible value, or is one that the draws set.
    """
    configs = {}
    for label, fields in variants.items():
        place = f"{where}variant {label!r}"
        offset = fields.get("seed_offset", 0)
        # Not `isinstance`, for which true and false are integers.
        if type(offset) is not int or offset < 0:
            raise StudyError(f"{place}: seed_offset: got {offset!r}; expected a whole number from 0")
        # Variants are compared run by run: a run with a seed or fold of its own would have no counterpart.
        drawn_elsewhere = {"seed", "fold"} & fields.keys()
        if drawn_elsewhere:
            name = min(drawn_elsewhere)
            raise StudyError(f"{place}: {name}: set by the study's seeds and folds; use those, or seed_offset")
        own = {name: value for name, value in fields.items() if name != "seed_offset"}
        configs[label] = [
            validate(RunConfig, place, shared | own | draw | {"seed": draw["seed"] + offset}) for draw in draws
        ]
    return configs


class Section(_Strict):
    """Runs of one section: an experiment that explains a published number, or the recipe.

    Attributes:
        notebook: Stem of the notebook that shows it.
        size: Name of one of `Sections.sizes`.
        shared: `RunConfig` fields of all its variants.
        seeds: Seeds; each variant is trained once for each seed and fold.
        folds: Folds of the cross-validation.
        variants: Label -> `RunConfig` fields.
    """

    notebook: str
    size: str
    shared: dict[str, Any] = {}
    seeds: Seeds = [0]
    folds: Folds = [0]
    variants: Variants = {}


class Trajectory(_Strict):
    """Length of the training over which two losses are compared step by step.

    Attributes:
        size: Name of one of `Sections.sizes`.
        steps: Steps to train.
        batch_size: Images in a step.
    """

    size: str
    steps: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]


class Quick(_Strict):
    """Replacements under a profile that is meant to be quick.

    Attributes:
        sizes: Sizes in place of those of `Sections`; their `epochs` also override those of a section.
        trajectory: Trajectory in place of that of `Sections`.
        first: Number of runs of each section that are trained.
    """

    sizes: dict[str, dict[str, Any]]
    trajectory: Trajectory
    first: Annotated[int, Field(ge=1)]


class Sections(_Strict):
    """Content of ``params/mechanisms.yaml``.

    Attributes:
        sizes: Name -> `RunConfig` fields that make up a run's size; "published" and "heldout" come from the profile.
        trajectory: Length of the training over which two losses are compared step by step.
        quick: Profile -> its replacements.
        sections: Name -> section.
    """

    sizes: dict[str, dict[str, Any]]
    trajectory: Trajectory
    quick: dict[str, Quick] = {}
    sections: dict[str, Section]

    @model_validator(mode="after")
    def _check_sizes(self):
        used = {f"sections.{name}.size": section.size for name, section in self.sections.items()}
        used["trajectory.size"] = self.trajectory.size
        for profile, quick in self.quick.items():
            used[f"quick.{profile}.trajectory.size"] = quick.trajectory.size
            for size in self.sizes:
                if size not in quick.sizes:
                    raise ValueError(f"quick.{profile}.sizes: no size {size!r}; expected {', '.join(self.sizes)}")
        known = [*self.sizes, "published", "heldout"]
        for place, size in used.items():
            if size not in known:
                raise ValueError(f"{place}: got {size!r}; expected one of {', '.join(known)}")
        return self


def validate(kind: type[_Strict], where: str, values: dict[str, Any], origins: dict[str, str] | None = None):
    """Return an instance of ``kind`` made from ``values``.

    Args:
        kind: One of this module's models.
        where: Origin of the values, for error messages: a file, or a part of one.
        values: Values by field name.
        origins: Field name -> origin of its value, where that is known more exactly than ``where``.

    Raises:
        StudyError: A parameter is faulty; names its origin, the value that it got and the values that it takes.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        problems = error.errors()
    lines = []
    for problem in problems:
        text = _explain(kind, problem)
        # The messages of this module's own validators begin with the parameter's name.
        place = problem["loc"]
        name = str(place[0]) if place else text.partition(":")[0]
        origin = (origins or {}).get(name, where)
        lines.append(f"{origin}: {text}")
    raise StudyError("; ".join(lines))


def _explain(kind: type[_Strict], problem: dict) -> str:
    name = ".".join(map(str, problem["loc"]))
    got = problem["input"]
    if problem["type"] == "extra_forbidden":
        known = f"; known are {', '.join(kind.model_fields)}" if len(problem["loc"]) == 1 else ""
        return f"unknown parameter {name!r}{known}{_suggest(kind, name)}"
    if problem["type"] == "missing":
        return f"{name}: missing; it has no default"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    if problem["type"] == "string_pattern_mismatch":
        return f"{name}: got {got!r}; expected small letters without accents, digits, - and _"
    message = problem["msg"].removeprefix("Input ")
    hint = ""
    if isinstance(got, str) and problem["type"] == "float_type":
        hint = " (YAML reads 1e-4 as text: write 1.0e-4)"
    return f"{name}: got {got!r} ({type(got).__name__}); {message}{hint}"


def _suggest(kind: type[_Strict], name: str) -> str:
    """Return what may have been meant by an unknown parameter; empty if nothing is like it."""
    if kind is Parameters and name in RunConfig.model_fields:
        return (
            f". {name} is set for all runs of a protocol: settings (published) or heldout, e.g. heldout={{{name}: ...}}"
        )
    close = get_close_matches(name, kind.model_fields, n=1)
    return f". Did you mean {close[0]}?" if close else ""


def read_parameters(*files: Path | str, **overrides: Any) -> Parameters:
    """Read parameters from YAML files. A later file wins key by key, as with ``papermill -f``; ``overrides`` win last.

    Raises:
        StudyError: A file is missing or not a mapping, or a parameter is faulty; names the file.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for file in map(Path, files):
        content = read_yaml(file)
        values |= content
        origins |= dict.fromkeys(content, str(file))
    # A file is not to blame for a parameter that is overridden.
    for name in overrides:
        origins.pop(name, None)
    return validate(Parameters, "parameters", values | overrides, origins)


class _Loader(yaml.CSafeLoader):
    """Loads YAML as `yaml.safe_load` does, but refuses a name that is given twice: the first value would be lost.

    It builds on the loader in C because a notebook reads every parameter file of the study several times.
    """

    def construct_mapping(self, node, deep=False):
        names = set()
        # Checked before merged mappings (<<) are added, because their names may be given again.
        for key, _ in node.value:
            # Any other key, such as that of {{folder}}, is refused below.
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
                names.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file of ``name: value`` lines.

    Raises:
        StudyError: The file is missing, not YAML or not a mapping of names.
    """
    # The likeliest cause is a mistyped profile, so the message lists the files that exist.
    if not file.is_file():
        present = ", ".join(sorted(other.stem for other in file.parent.glob("*.yaml"))) or "none"
        raise StudyError(f"{file}: no such parameter file; in this folder there are: {present}")
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{file}: not YAML ({error}); expected 'name: value' lines") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise StudyError(f"{file}: got a {type(content).__name__}; expected 'name: value' lines")
    for name in content:
        if not isinstance(name, str):
            raise StudyError(f"{file}: the name {name!r} is a {type(name).__name__}; names are text")
    return content


def read_profile(name: str, **overrides: Any) -> Parameters:
    """Read the parameters of one profile, ``params/<name>.yaml``.

    Raises:
        StudyError: The file's `profile` is not its name; or as `read_parameters`.
    """
    file = find_study_folder() / "params" / f"{name}.yaml"
    parameters = read_parameters(file, **overrides)
    if parameters.profile != name:
        raise StudyError(f"{file}: profile: got {parameters.profile!r}; expected {name!r}, the name of the file")
    return parameters


def read_family(family: str, parameters: Parameters) -> Parameters:
    """Read the variants of ``family`` and return them with all other parameters taken from ``parameters``."""
    # The study decides size, seeds and folders; the family decides what is compared.
    shared = parameters.model_dump(exclude={"family", "variants", "heldout_variants", "second_variants"})
    return read_parameters(find_study_folder() / "params" / f"{family}.yaml", **shared)


def list_notebooks() -> list[str]:
    """Return the stems of the study's numbered notebooks, in their order."""
    return sorted(file.stem for file in find_study_folder().glob("notebooks/[0-9]_*.ipynb"))


def families() -> list[str]:
    """Return the names of the experiment families in the order of their notebooks.

    A family is a notebook ``notebooks/<number>_<family>.ipynb`` together with its variants, ``params/<family>.yaml``.
    """
    folder = find_study_folder() / "params"
    names = []
    for stem in list_notebooks():
        name = stem.partition("_")[2]
        file = folder / f"{name}.yaml"
        # Another notebook may have a parameter file too, such as mechanisms.yaml, but that names no family.
        named = read_yaml(file).get("family") if file.is_file() else None
        if named and named != name:
            raise StudyError(f"{file}: family: got {named!r}; expected {name!r}, the name of the file and its notebook")
        if named:
            names.append(name)
    return names


def read_sections(parameters: Parameters) -> Sections:
    """Read the sections as they are under a profile, with its sizes and its quick replacements.

    They are those of ``params/mechanisms.yaml``, and the recipe from ``params/recipe.yaml`` if that exists.

    Raises:
        StudyError: ``params/mechanisms.yaml`` is missing, or a parameter in either file is unknown or impossible.
    """
    folder = find_study_folder() / "params"
    file = folder / "mechanisms.yaml"
    recipe = folder / f"{RECIPE}.yaml"
    sections = validate(Sections, str(file), read_yaml(file))
    if recipe.is_file():
        # Validated by itself first, so that a message about it names this file.
        section = validate(Section, str(recipe), read_yaml(recipe))
        sections = validate(Sections, str(recipe), dict(sections) | {"sections": sections.sections | {RECIPE: section}})
    quick = sections.quick.get(parameters.profile)
    sizes = quick.sizes if quick else sections.sizes
    # These two sizes have no numbers of their own: they follow the profile.
    published = {field: getattr(parameters, field) for field in Size.model_fields}
    heldout = {"precision": parameters.precision} | parameters.heldout
    changes: dict[str, Any] = {"sizes": sizes | {"published": published, "heldout": heldout}}
    if quick:
        changes["trajectory"] = quick.trajectory
    return sections.model_copy(update=changes)


def read_notebook(namespace: dict[str, Any]) -> Parameters:
    """Return the parameters of a notebook; to be called in the cell after those that set them.

    A parameter left at None is read from ``params/<family>.yaml`` and ``params/<profile>.yaml``; the latter wins.

    Args:
        namespace: The notebook's ``globals()``, with its defaults as papermill or a person may have changed them.

    Raises:
        StudyError: A parameter is faulty or unknown (papermill only warns of an unknown one).
    """
    # All other names of a notebook, such as its imports, are not parameters.
    known = {*Parameters.model_fields}
    given = {name: namespace[name] for name in known if namespace.get(name) is not None}
    for name in _injected_names(namespace.get("In", [])) - known:
        given[name] = namespace[name]
    folder = find_study_folder() / "params"
    names = [given.get("family"), given.get("profile", Parameters().profile)]
    files = [folder / f"{name}.yaml" for name in names if name]
    return read_parameters(*files, **given)


def _injected_names(cells: list[str]) -> set[str]:
    """Return the names that papermill has set, from the sources of executed cells; none in a notebook run by hand."""
    names = set()
    for cell in cells:
        # Papermill inserts such a cell after the notebook's own parameters, with one assignment of a literal per line.
        if cell.startswith("# Parameters\n"):
            for assignment in ast.parse(cell).body:
                names.add(assignment.targets[0].id)
    return names


_PARSING = Lock()  # two threads that parse at once confuse Python 3.11 (SystemError, CPython issue 106905)


def code_version(*parts: ModuleType | Callable) -> str:
    """Return eight hexadecimal digits that change with the code of ``parts``, not with its comments or docstrings.

    Results are stored with the version of the code that made them, and are made again when it changes.

    Args:
        *parts: Modules; or functions, each of which counts with all that it uses of its own module, and, if it is
            defined inside another function, with that one. So the text of a figure can change without its numbers being
            measured again.
    """
    digest = hashlib.sha256()
    for part in parts:
        tree = _parse_code(part)
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                # Docstrings, and the strings that describe constants, are statements that consist of a string.
                node.body = [statement for statement in body if not _is_text(statement)] or [ast.Pass()]
        digest.update(ast.unparse(tree).encode())
    return digest.hexdigest()[:8]


def _parse_code(part: ModuleType | Callable) -> ast.Module:
    """Parse a module, or only those of its statements that a function consists of and uses."""
    module = part if isinstance(part, ModuleType) else sys.modules[part.__module__]
    source = Path(module.__file__).read_text(encoding="utf-8")
    with _PARSING:
        tree = ast.parse(source)
    if part is module:
        return tree
    defined = {name: statement for statement in tree.body for name in _list_names(statement)}
    # The name of a function inside another one begins with that of the other.
    wanted, used = [defined[part.__qualname__.partition(".")[0]]], []
    while wanted:
        statement = wanted.pop()
        if statement not in used:
            used.append(statement)
            names = [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]
            wanted += [defined[name] for name in names if name in defined]
    tree.body = [statement for statement in tree.body if statement in used]
    return tree


def _list_names(statement: ast.stmt) -> list[str]:
    """Return the names that a statement of a module defines, other than by import."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    return [node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def _is_text(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return False
    return isinstance(statement.value.value, str)
