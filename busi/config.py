"""Typed parameters: what a run is, what a study is, and how both are read from ``params/*.yaml``.

A parameter that is unknown, of the wrong type or impossible beside another stops with a `StudyError` that names it,
before anything is read, trained or written.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

ROOT = Path(__file__).resolve().parent.parent
"""The repository: relative paths in parameters start here, wherever a notebook is run from."""

FAMILIES = ("upsampling", "optimization", "loss", "data")
"""The experiment families, in the order of the paper's Tables 1 to 4."""

PROTOCOLS = ("published", "heldout")

GALLERY = "gallery"
"""The notebook, and the page, that shows images of the data set."""

FOLDS = 5
"""Of the cross-validation."""

BORDER = 184
"""Pixels by which the unpadded network's output is smaller than its input (both axes): 300 gives 116."""


class StudyError(ValueError):
    """Something a user can mend: says which file or parameter, what was found, what was expected, what to do."""


class _Parameters(BaseModel):
    # Strict: YAML reads `1e-4` as text and `yes` as true; neither may slip through as a number.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Size(_Parameters):
    """How big a run is: what a profile decides and a variant normally does not.

    Attributes:
        image_size: Height and width in pixels of the network's input; every pooling must divide evenly: 188 + 16 k
            pixels without padding, 16 k with it.
        base_filters: Filters of the first convolution; the bottleneck has 16 times as many. Published: 64.
        epochs: Passes over the training images. Published: 75.
        precision: Keras dtype policy of the network; the softmax and the loss are float32 in both.
    """

    image_size: Annotated[int, Field(ge=16)] = 300
    base_filters: Annotated[int, Field(ge=2, multiple_of=2)] = 64
    epochs: Annotated[int, Field(ge=1)] = 75
    precision: Literal["float32", "mixed_bfloat16"] = "float32"


def pools_evenly(image_size: int, padding: str) -> None:
    """Raise ValueError where four poolings do not divide evenly, or an unpadded network leaves no output."""
    least = {"valid": 188, "same": 16}[padding]
    if image_size < least or (image_size - least) % 16:
        nearest = max(least, least + 16 * round((image_size - least) / 16))
        raise ValueError(
            f"image_size: got {image_size}; with {padding!r} padding the network takes {least} + 16 k pixels: "
            f"use {nearest}"
        )


HELDOUT = {
    "masks": "all",
    "second_channel": "complement",
    "target": "aligned",
    "resize": "letterbox",
    "padding": "same",
    "bce": "probabilities",
    "optimizer": "adam",
    "learning_rate": 0.001,
    "momentum": 0.0,
    "preprocessing": "standardize",
    "shuffle": True,
    "batch_size": 8,
    "split": "grouped",
    "patience": 10,
}
"""What the held-out protocol does where the published one has a fault or no choice; defaults of its runs.

Optimizer and preprocessing are ones that learn: under the published ones, families that ask about something else would
compare networks on the floor with each other. Both were chosen on a validation part.
"""


class RunConfig(Size):
    """One training, whole: the defaults are the published baseline (public notebook; the paper's Tables 1, 2 and 4).

    Under ``protocol="heldout"`` the defaults of `HELDOUT` take their place.

    Attributes:
        protocol: How the run is trained and scored; see docs/published-protocol.md and docs/heldout-protocol.md.
        upsampling: How the upsampling steps double the size: "UpSampling2D" repeats pixels (published), "bilinear"
            interpolates, "Conv2DTranspose" is learned.
        upsampling_steps: Which of the four steps: the "first" (published), the others being Conv2DTranspose; or "all".
        optimizer: "sgd" or "adam", the latter with Keras' default betas.
        learning_rate: Initial rate, per step of one batch.
        momentum: Of SGD; must be 0 for Adam, which has none.
        schedule: "constant", or "exponential": rate * 0.96 ** (step / 1000), continuous.
        loss: "bce" and "kld" average over both channels' pixels; "dice" is taken over both channels of a whole batch
            (published), "lesion-dice" over the lesion channel alone, "lesion-dice+bce" is the sum of that and "bce".
        bce: What "bce" is taken of. "logits": each softmax logit through a sigmoid of its own, which is what Keras on
            TensorFlow makes of BinaryCrossentropy behind a softmax (published); "probabilities": the softmax's.
        preprocessing: "none"; "normalize": each image to [0, 1] by its own extremes; "standardize": that, then the
            training part's mean and deviation; "augment": that, and flip, contrast and brightness, the mask moved
            along; "augment-image": the same with the mask left where it was. "text": standardize each image, then flip
            image and target together, contrast, brightness; "code": divide the scaled image by 255 again, then flip,
            contrast and brighten the image alone (the public notebook).
        masks: "first" reads `*_mask.png` only (published); "all" takes the union of an image's masks.
        second_channel: "mirror" is (m + 1) mod 2 (published), which is 1 + m where 0 < m < 1; "complement" is 1 - m.
        target: "squeezed" resizes the whole mask onto the output (published); "aligned" takes the part of the mask
            that the output covers.
        resize: "squash" to a square (published), or "letterbox": aspect ratio kept, the rest filled with black.
        padding: Of the convolutions: "valid" (published), the output covers the middle of the image; "same", all.
        shuffle: Order of the images within an epoch: as listed (published) or drawn anew every epoch.
        batch_size: Images a step; published 1.
        split: "none": trained and scored on all lesion images (published); "grouped": five folds that keep
            near-duplicates together; "random": five folds that do not.
        fold: Fold of the cross-validation, 0 without one.
        patience: Epochs without a better validation score after which training ends; 0 never ends early.
        seed: Seeds initialisation, augmentation and shuffling.
    """

    protocol: Literal["published", "heldout"] = "published"
    upsampling: Literal["UpSampling2D", "bilinear", "Conv2DTranspose"] = "UpSampling2D"
    upsampling_steps: Literal["first", "all"] = "first"
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    schedule: Literal["constant", "exponential"] = "constant"
    loss: Literal["bce", "kld", "dice", "lesion-dice", "lesion-dice+bce"] = "bce"
    bce: Literal["logits", "probabilities"] = "logits"
    preprocessing: Literal["none", "normalize", "standardize", "augment", "augment-image", "text", "code"] = "none"
    masks: Literal["first", "all"] = "first"
    second_channel: Literal["mirror", "complement"] = "mirror"
    target: Literal["squeezed", "aligned"] = "squeezed"
    resize: Literal["squash", "letterbox"] = "squash"
    padding: Literal["valid", "same"] = "valid"
    shuffle: bool = False
    batch_size: Annotated[int, Field(ge=1)] = 1
    split: Literal["none", "grouped", "random"] = "none"
    fold: Annotated[int, Field(ge=0, lt=FOLDS)] = 0
    patience: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_protocol(cls, values: dict[str, Any]):
        return HELDOUT | values if values.get("protocol") == "heldout" else values

    @model_validator(mode="after")
    def _adam_has_no_momentum(self):
        if self.optimizer == "adam" and self.momentum:
            raise ValueError(f"momentum: got {self.momentum} with optimizer adam, which has none: set momentum to 0")
        return self

    @model_validator(mode="after")
    def _pools_evenly(self):
        pools_evenly(self.image_size, self.padding)
        return self

    @model_validator(mode="after")
    def _only_a_split_holds_out(self):
        if (self.protocol == "heldout") != (self.split != "none"):
            raise ValueError(
                f"split: got {self.split!r} under protocol {self.protocol!r}; 'heldout' takes grouped or random, "
                "'published' none"
            )
        if self.split == "none" and (self.fold or self.patience):
            raise ValueError("fold, patience: need a split that holds images out; set both to 0")
        return self

    @property
    def output_size(self) -> int:
        """Height and width in pixels of the network's output."""
        return self.image_size if self.padding == "same" else self.image_size - BORDER

    @property
    def name(self) -> str:
        """What sets the run apart from its protocol's baseline, for people: "baseline", "loss-kld", ..."""
        baseline = HELDOUT if self.protocol == "heldout" else {}
        apart = [
            f"{field}-{getattr(self, field)}"
            for field, info in RunConfig.model_fields.items()
            if field not in {*Size.model_fields, "protocol", "fold", "seed"}
            and getattr(self, field) != baseline.get(field, info.default)
            and not (field == "momentum" and self.optimizer == "adam")
        ]
        return "_".join(apart) or "baseline"

    @property
    def label(self) -> str:
        """Protocol, name, fold and seed, e.g. "published/loss-kld/fold0-seed0": one run of a profile, for people."""
        return f"{self.protocol}/{self.name}/fold{self.fold}-seed{self.seed}"

    def digest(self, *extra: str, without: frozenset[str] = frozenset()) -> str:
        """Eight hexadecimal digits that change with any field not in ``without`` and with ``extra``.

        Fields at their default do not count, so that a field added later leaves earlier runs' digests as they were.
        """
        content = json.dumps([self.model_dump(exclude=set(without), exclude_defaults=True), *extra], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:8]


class Study(Size):
    """The parameters of a notebook: a profile (how big), and a family with its variants (what is compared).

    Attributes:
        profile: Names the folders under reports/ and runs/.
        data_dir: A folder laid out as BUSI is released, or "phantom" for the synthetic images drawn into data/phantom;
            may be empty where nothing is trained.
        runs_dir: Where finished and unfinished runs are kept.
        seeds: One run a variant for each.
        settings: `RunConfig` fields set for every variant, e.g. ``{masks: all}``.
        family: The experiment family; empty for notebooks that compare nothing.
        variants: Label in the table -> `RunConfig` fields that set it apart from the baseline, and `seed_offset`, added
            to every seed (for a variant that repeats another's configuration). In a notebook, those of
            params/<family>.yaml where none are given.
        heldout: `RunConfig` fields of every held-out run: its size, its baseline.
        heldout_variants: As `variants`, for the held-out protocol.
        runs_per_job: Runs that one process of the study trains one after another: more than one where starting takes
            longer than training.
        folds: Folds of the cross-validation that are run, each with initialisation and augmentation of its own.
        train_missing: Whether runs that are not finished are trained. If not, what the report has gathered is read,
            runs of fewer epochs included, and no data are needed.
        show_pixels: Whether pages may show images of the data set; only ever true for phantom data in committed pages.
    """

    profile: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")] = "smoke"
    data_dir: str = ""
    runs_dir: str = "runs"
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    settings: dict[str, Any] = {}
    family: Literal["", "upsampling", "optimization", "loss", "data"] = ""
    variants: dict[str, dict[str, Any]] = {}
    heldout: dict[str, Any] = {}
    heldout_variants: dict[str, dict[str, Any]] = {}
    folds: Annotated[list[Annotated[int, Field(ge=0, lt=FOLDS)]], Field(min_length=1)] = list(range(FOLDS))
    runs_per_job: Annotated[int, Field(ge=1)] = 1
    train_missing: bool = True
    show_pixels: bool = False

    @model_validator(mode="after")
    def _pools_evenly(self):
        pools_evenly(self.image_size, self.settings.get("padding", "valid"))
        return self

    @property
    def data_path(self) -> Path:
        """The data folder; relative ones start at the repository."""
        return ROOT / "data" / "phantom" if self.data_dir == "phantom" else ROOT / Path(self.data_dir).expanduser()

    @property
    def runs_path(self) -> Path:
        """The profile's run folders."""
        return ROOT / Path(self.runs_dir).expanduser() / self.profile

    @property
    def report_path(self) -> Path:
        """What the profile's study leaves for its readers."""
        return ROOT / "reports" / self.profile

    @property
    def pages(self) -> list[str]:
        """The report's pages in order: the numbered notebooks, and the gallery where pixels may be shown."""
        wanted = ["[0-9]_*", *([GALLERY] if self.show_pixels else [])]
        return [file.stem for name in wanted for file in sorted((ROOT / "notebooks").glob(f"{name}.ipynb"))]

    def configs(self, protocol: str = "published") -> dict[str, list[RunConfig]]:
        """Each variant's runs under a protocol: one a seed, and under "heldout" one a seed and fold.

        Raises:
            StudyError: A variant, `settings` or `heldout` names an unknown field or gives an impossible value.
        """
        if protocol == "heldout":
            shared = {"protocol": protocol, "precision": self.precision} | self.heldout
            # Split, initialisation and augmentation vary together: each fold has seeds of its own.
            draws = [{"fold": fold, "seed": seed * FOLDS + fold} for seed in self.seeds for fold in self.folds]
            variants = self.heldout_variants
        else:
            shared = {field: getattr(self, field) for field in Size.model_fields} | self.settings
            draws = [{"seed": seed} for seed in self.seeds]
            variants = self.variants
        return {label: _draws(label, shared | fields, draws) for label, fields in variants.items()}


def _draws(label: str, fields: dict[str, Any], draws: list[dict[str, int]]) -> list[RunConfig]:
    where = f"variant {label!r}"
    offset = fields.pop("seed_offset", 0)
    if type(offset) is not int or offset < 0:
        raise StudyError(f"{where}: seed_offset: got {offset!r}; expected a whole number from 0")
    if set_elsewhere := {"seed", "fold"} & fields.keys():
        raise StudyError(
            f"{where}: {min(set_elsewhere)}: set by the study's seeds and folds; use those, or seed_offset"
        )
    return [validated(RunConfig, where, fields | draw | {"seed": draw["seed"] + offset}) for draw in draws]


def validated(kind: type[_Parameters], where: str, values: dict[str, Any]):
    """A ``kind`` made of ``values``.

    Raises:
        StudyError: Names ``where``, each faulty parameter, what it got and what it takes.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        lines = [_explain(kind, problem) for problem in error.errors()]
        raise StudyError(f"{where}: " + "; ".join(lines)) from None


def _explain(kind: type[_Parameters], problem: dict) -> str:
    name, got = ".".join(map(str, problem["loc"])), problem["input"]
    if problem["type"] == "extra_forbidden":
        return f"unknown parameter {name!r}; known are {', '.join(kind.model_fields)}"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    hint = (
        " (YAML reads 1e-4 as text: write 1.0e-4)" if isinstance(got, str) and problem["type"] == "float_type" else ""
    )
    return f"{name}: got {got!r} ({type(got).__name__}); {problem['msg'].removeprefix('Input ')}{hint}"


def read(*files: Path | str, **overrides: Any) -> Study:
    """A study from YAML files, later ones winning key by key as with ``papermill -f``, then ``overrides``.

    Raises:
        StudyError: A file is missing or not a mapping, or a parameter is faulty.
    """
    values: dict[str, Any] = {}
    for file in map(Path, files):
        if not file.is_file():
            raise StudyError(f"{file}: no such parameter file; those of the study are in {ROOT / 'params'}")
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise StudyError(f"{file}: not YAML ({error}); expected 'name: value' lines") from error
        content = {} if content is None else content
        if not isinstance(content, dict):
            raise StudyError(f"{file}: got a {type(content).__name__}; expected 'name: value' lines")
        if odd := [name for name in content if not isinstance(name, str)]:
            raise StudyError(f"{file}: the name {odd[0]!r} is a {type(odd[0]).__name__}; names are text")
        values |= content
    return validated(Study, "parameters", values | overrides)


def family(name: str, profile: str, **overrides: Any) -> Study:
    """The study of one family under one profile, from ``params/<name>.yaml`` and ``params/<profile>.yaml``.

    Raises:
        StudyError: As `read`.
    """
    return read(ROOT / "params" / f"{name}.yaml", ROOT / "params" / f"{profile}.yaml", **overrides)


def of_notebook(namespace: dict[str, Any]) -> Study:
    """The study that a notebook's parameters describe; called in the cell after them.

    Args:
        namespace: The notebook's ``globals()``: defaults, as papermill or a person has changed them.

    Raises:
        StudyError: A parameter is faulty, or, in the first cells of a fresh kernel, unknown (papermill only warns).
    """
    given = {name: namespace[name] for name in Study.model_fields if name in namespace}
    plain = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_") and name not in {"In", "Out"} and isinstance(value, str | int | float | list | dict)
    }
    shell = namespace.get("get_ipython")
    # Defaults, papermill's cell, this one; the counter is one ahead. Later cells define names of their own, which a
    # cell run a second time must not take for parameters.
    if shell is not None and shell().execution_count <= 4:
        given |= plain
    study = validated(Study, "parameters", given)
    if study.family and not (study.variants or study.heldout_variants):
        given = {name: value for name, value in given.items() if name not in {"variants", "heldout_variants"}}
        return read(ROOT / "params" / f"{study.family}.yaml", **given)
    return study


def distinct(study: Study, protocol: str = "published") -> list[RunConfig]:
    """Every run of all families under ``study``'s profile and settings, each once.

    Seeds and folds outermost, so that every row has its first before any has its second.

    Raises:
        StudyError: As `read`.
    """
    variants = [runs for name in FAMILIES for runs in related(study, name).configs(protocol).values()]
    return list(dict.fromkeys(config for runs in zip(*variants, strict=True) for config in runs))


def related(study: Study, name: str) -> Study:
    """The study of another family under ``study``'s profile and settings.

    Raises:
        StudyError: As `read`.
    """
    shared = study.model_dump(exclude={"profile", "family", "variants", "heldout_variants"})
    return family(name, study.profile, **shared)
