"""Sentences computed from the numbers, which say what the tables and figures of a report show.

Tables come from `busi.report.tables` and `busi.report.heldout`; `runs` and `epochs` from `busi.results.Results`.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial.distance import pdist

from busi.config import SECOND, Parameters, RunConfig
from busi.dataset.catalog import is_released
from busi.display import agree, count
from busi.report.heldout import name_size
from busi.report.tables import (
    FATES_DIFFER,
    FEW_RUNS,
    FEWEST_RUNS,
    NO_PUBLISHED,
    NOT_REPRODUCED,
    REPRODUCED,
    is_comparable,
    tell_end,
)
from busi.runs import ANSWERS, TRAINING_VERSION
from busi.scoring.fates import count_fates
from busi.scoring.predictors import MEAN_MASK, PREDICTORS
from busi.scoring.statistics import TARGET

_ONE_CONFIGURATION = ("Upsampling2D", "BCE")
"""Published rows that are one configuration, as far as the public code shows."""

# Sentences with places for the columns of a table of runs.
_MACHINE = "{processor}, {cores:g} cores ({threads:g} used by a run), {gpus_in_words}"

_SOFTWARE = "Python {python}, Keras {keras} on {backend} {backend_version}, NumPy {numpy}"


def answer_in_short(rows: pd.DataFrame, verdicts: pd.DataFrame, filters: int) -> list[str]:
    """Return the results that a reader should see first: on the published rows, our runs of them, and the claims.

    Args:
        rows: As `busi.report.tables.place_rows`.
        verdicts: As `busi.report.claims.read_verdicts`.
        filters: Filters of the first convolution in our runs of the rows.
    """
    sentences = [_answer_published(rows), _answer_ours(rows, filters)] if is_comparable(rows) else [NO_PUBLISHED]
    return [*sentences, _answer_claims(verdicts)]


def answer_in_detail(rows: pd.DataFrame, runs: pd.DataFrame, scores: pd.DataFrame, filters: int) -> list[str]:
    """Return what belongs beside the answer: how far runs of one configuration lie apart, and what networks reach.

    Args:
        rows: As `busi.report.tables.place_rows`.
        runs: Our runs of these rows, as `busi.results.Results.runs`, each once.
        scores: As ``heldout.csv``.
        filters: Filters of the first convolution in our runs of the rows.
    """
    return [*_compare_seeds(rows, runs, filters), *_compare_losses(rows, runs, filters), *_answer_scores(scores)]


def _answer_claims(verdicts: pd.DataFrame) -> str:
    counts = []
    for verdict, own in verdicts.groupby("verdict", sort=False):
        proofs = own.basis[own.basis != "scores"]
        by_proof = f" ({len(proofs)} of them by {'; '.join(proofs)})" if len(proofs) else ""
        counts.append(f"{len(own)} {agree(len(own), 'is', 'are')} {verdict}{by_proof}")
    text = f"**Of {len(verdicts)} claims** of the paper, {', '.join(counts)}. Scores are of images that the scored "
    text += f"network was not trained on ({_join_sizes(verdicts['size'])})."
    # A study without a second size has empty cells there.
    second = verdicts[verdicts.second_verdict != ""]
    if len(second):
        others = second[second.second_verdict != second.verdict]
        told = [f"{row.claim.partition('.')[0]} ({row.second_verdict})" for row in others.itertuples()]
        claims = agree(len(told), "claim", "claims")
        different = f", except on {claims} {' and '.join(told)}" if told else ""
        text += f" At {_join_sizes(second.second_size)}, the verdicts are the same{different}."
    return text


def _answer_scores(scores: pd.DataFrame) -> list[str]:
    # Those of the second size are other networks.
    size = scores["size"].iloc[0]
    scores = scores[scores["size"] == size]
    trained = scores[scores.n_runs > 0].dropna(subset="dice")
    if not len(trained):
        return []
    untrained = scores[scores.variant.isin(PREDICTORS)].drop_duplicates("variant")
    untrained = untrained.set_index("variant").dice
    best_untrained = untrained.idxmax()
    worst = trained.dice.min()
    best = trained.dice.max()
    # The mean mask is scored on all images, networks only on those of the folds trained so far.
    images = scores.n_images[scores.variant == MEAN_MASK].max()
    part = ", in the folds trained so far" if (trained.n_images < images).any() else ""
    return [
        f"**Dice on those images** is {worst:.3f} to {best:.3f} for the variants of the four families "
        f"({name_size(size)}{part}); without training, {untrained[MEAN_MASK]:.3f} for the mean of the training masks "
        f"and at most {untrained[best_untrained]:.3f} ({best_untrained})."
    ]


def _join_sizes(column: pd.Series) -> str:
    """Return the size that all verdicts share; if their numbers of runs differ, say that each claim has its own."""
    sizes = list(dict.fromkeys(column))
    if len(sizes) == 1:
        return sizes[0]
    # A size lists pixels, filters, epochs, then runs.
    shared = []
    for values in zip(*(size.split(", ") for size in sizes), strict=False):
        if len(set(values)) == 1:
            shared.append(values[0])
    return f"{', '.join(shared)}; each claim says from how many runs"


def _answer_published(rows: pd.DataFrame) -> str:
    """Return how many published rows are above all blind predictors in AUC, and how many of the others in loss."""
    beyond = (rows.reached_by == "none").sum()
    return (
        f"**{beyond or 'None'} of {len(rows)} published rows** {agree(beyond, 'has', 'have')} a higher AUC than every "
        f"blind predictor tried here, none of which looks at the image. {_answer_losses(rows)}"
    )


def _answer_losses(rows: pd.DataFrame) -> str:
    """Return how many of the rows that blind predictors reach in AUC are better than these in loss."""
    reached = rows[rows.reached_by != "none"]
    if not len(reached):
        return ""
    better = reached.row[reached.lower_loss]
    neither = len(reached) - len(better)
    text = f"Of the other {len(reached)}, "
    if len(better):
        text += f"{len(better)} {agree(len(better), 'has', 'have')} a lower loss than all of these predictors "
        text += f"({', '.join(better)}), "
    return f"{text}{neither} {agree(neither, 'is', 'are')} better neither in AUC nor in loss."


def _answer_ours(rows: pd.DataFrame, filters: int) -> str:
    """Return which of the rows trained here are reproduced and which are not."""
    trained = rows[rows.n_runs > 0]
    if not len(trained):
        return "**No row has been trained here yet.**"
    reproduced = trained[trained.verdict == REPRODUCED]
    number = len(reproduced)
    runs = trained.n_runs
    fewest = f"{runs.min()} to " if runs.min() < runs.max() else ""
    text = f"**{number or 'None'} of the {len(trained)} rows trained here {agree(number, 'is', 'are')} reproduced** "
    text += f"({filters} filters, {fewest}{count(runs.max(), 'run')} each)"
    if number:
        text += f": {', '.join(reproduced.row)}"
    # A reproduced row need not be one whose network looked at an image.
    blind = reproduced.row[reproduced.reached_by != "none"]
    if len(blind):
        text += f"; a blind predictor reaches {' and '.join(blind)}, too"
    text += "."
    failed = trained.row[trained.verdict == NOT_REPRODUCED]
    if len(failed):
        text += f" Not reproduced: {', '.join(failed)}."
    reasons = {FEW_RUNS: f"fewer than {FEWEST_RUNS} runs", FATES_DIFFER: "runs with different fates"}
    for verdict, reason in reasons.items():
        opened = (trained.verdict == verdict).sum()
        if opened:
            text += f" {opened} {agree(opened, 'is', 'are')} open because of {reason}."
    # The published row is above the mean mask, our runs of it are not.
    is_below = (trained.reached_by == "none") & (trained.auc_high.round(4) <= trained.mask_auc.round(4))
    below = trained.row[is_below]
    if len(below):
        text += f" Unlike the published rows, our runs of {' and '.join(below)} have no higher AUC than the mean mask"
        text += f"{_tell_twin(rows, below)}."
    return text


def _tell_twin(rows: pd.DataFrame, below: pd.Series) -> str:
    """Return the AUC of the other row of the configuration published twice, if only one of the two is ``below``."""
    both = rows[rows.row.isin(_ONE_CONFIGURATION)].set_index("row")
    others = both[~both.index.isin(below)]
    if len(both) < 2 or len(others) != 1:
        return ""
    row = others.iloc[0]
    # Missing if there is no run yet.
    if not row.auc_low > row.mask_auc:
        return ""
    (twin,) = set(both.index) - {row.name}
    lowest = "" if row.auc_low == row.auc_high else " or more"
    return f" ({row.name}, the same configuration as {twin}, has {row.auc_low:.4f}{lowest})"


def _compare_seeds(rows: pd.DataFrame, runs: pd.DataFrame, filters: int) -> list[str]:
    """Return how far trainings of one configuration lie apart; nothing until both of its rows have been trained."""
    both = rows[rows.row.isin(_ONE_CONFIGURATION) & (rows.n_runs > 0)]
    if len(both) < 2 or not is_comparable(rows):
        return []
    own = runs[runs.variant.isin(_ONE_CONFIGURATION)]
    # In AUC, which means the same for every loss. A mean over pairs, because a range grows with the number of runs.
    apart = pdist(own[["training_auc"]]).mean()
    beyond = rows[rows.reached_by == "none"]
    rows_apart = pdist(beyond[["published_auc"]]).mean()
    published = " and ".join(f"{auc:.4f}" for auc in both.published_auc)
    size = f"{filters} filters, cut at epoch {both.epochs.min():.0f}"
    text = (
        f"**One configuration is published twice**, as far as the public code shows: as Upsampling2D and BCE, with AUC "
        f"{published}. Its {len(own)} runs here (other weights and another order of the images each; {size}) differ "
        f"from each other by {apart:.4f} in AUC, on average over their pairs. The {len(beyond)} published rows above "
        f"all blind predictors differ by {rows_apart:.4f}."
    )
    if own.fate.nunique() > 1 and REPRODUCED in set(both.verdict):
        text += f" Judged as one row, it would be open: the fates of its runs are {count_fates(own.fate)}."
    return [text]


def _compare_losses(rows: pd.DataFrame, runs: pd.DataFrame, filters: int) -> list[str]:
    """Return whether chance alone makes a gap like that between KLD and BCE in Table 3; nothing without the runs."""
    trained = rows.dropna(subset="loss").set_index("row")
    if not {"KLD", *_ONE_CONFIGURATION} <= set(trained.index) or not is_comparable(rows):
        return []
    kld = trained.loc["KLD"]
    bce = trained.loc["BCE"]
    gap = abs(kld.published_loss - bce.published_loss)
    floors_gap = abs(kld.floor_loss - bce.floor_loss)
    losses = runs.training_loss[runs.variant.isin(_ONE_CONFIGURATION)]
    low = losses.min()
    high = losses.max()
    apart = pdist(losses.to_frame())
    as_far = (apart >= gap).sum()
    between = "between" if low < kld.loss_low and kld.loss_high < high else "not between"
    kld_runs = count(kld.n_runs, "run")
    end = agree(kld.n_runs, "ends", "end")
    kld_losses = f"{kld.loss_low:.4f} to {kld.loss_high:.4f}" if kld.n_runs > 1 else f"{kld.loss:.4f}"
    return [
        f"**KLD and BCE are {gap:.4f} apart in Table 3.** They are two functions, whose lowest values for a constant "
        f"output differ by {floors_gap:.4f}. Here, at {filters} filters, the {count(len(losses), 'run')} of one "
        f"configuration, Upsampling2D and BCE, end at {low:.4f} to {high:.4f}; {as_far} of their "
        f"{count(len(apart), 'pair')} {agree(as_far, 'is', 'are')} at least as far apart. The {kld_runs} of KLD {end} "
        f"{between} them, at {kld_losses}."
    ]


def describe_dataset(images: pd.DataFrame) -> str:
    """Return how many images and lesions there are and how small lesions are, from `catalog.describe_images`."""
    # Normal images would lower the share, and there is no lesion in them to miss.
    lesions = images[images.image_class != "normal"]
    share = lesions.lesion_share
    half = share.median()
    background = 1 - share.mean()
    several = (lesions.masks > 1).sum()
    have = agree(several, "image has", "images have")
    return (
        f"{len(images)} images, {len(lesions)} with a lesion. Half of the lesions cover less than {half:.1%} of their "
        f"image. So a predictor that never finds one is still right on {background:.1%} of an average image, at its "
        f"original size and against all masks. {several} {have} more than one mask; the published code reads only the "
        "first."
    )


def describe_positions(images: pd.DataFrame, shares: pd.DataFrame) -> str:
    """Return where lesions lie, how much of that is known without looking at an image, and how many are bright.

    Args:
        images: As `busi.dataset.audit.describe_pixels`.
        shares: As `busi.dataset.audit.mean_mask`.
    """
    lesions = images.dropna(subset=["row"])
    # Positions are shares of the image's height and width.
    is_middle = lesions.row.between(0.25, 0.75) & lesions.column.between(0.25, 0.75)
    is_brighter = lesions.inside > lesions.ring
    brighter = is_brighter.sum()
    verb = agree(brighter, "is", "are")
    often = shares.to_numpy().max()
    return (
        f"The centre of {is_middle.mean():.0%} of the lesions lies in the middle quarter of the image. The place "
        f"covered most often is lesion in {often:.0%} of the lesion images: so much is known without looking. "
        f"{brighter or 'None'} of {len(lesions)} lesions {verb} brighter than the band around them; the others are as "
        "dark or darker."
    )


def describe_duplicates(split: pd.DataFrame, counts: pd.DataFrame, bound: int) -> str:
    """Return how many pairs the hashes find, how many images are grouped, and how many groups hold several classes.

    Args:
        split: As `busi.dataset.splits.make_split`.
        counts: As `busi.dataset.duplicates.count_distances`.
        bound: Largest distance between near-duplicates, in bits of 64.
    """
    groups = split.groupby("group").image_class.agg(["size", "nunique"])
    # A group of one is an image without near-duplicates.
    several = groups[groups["size"] > 1]
    tied = several["size"].sum()
    is_near = counts.distance <= bound
    near = counts.pairs[is_near].sum()
    pairs = counts.pairs.sum()
    number = count(len(several), "group")
    if len(several):
        largest = several["size"].max()
        number += f", the largest of {largest}"
    is_mixed = several["nunique"] > 1
    mixed = int(is_mixed.sum())
    hold = agree(mixed, "holds", "hold")
    return (
        f"{near} of {pairs:,} pairs of images differ in at most {bound} bits in each of two hashes of 64 bits. "
        f"With crops that were found inside another image, and pairs found by eye, {tied} of {len(split)} images are "
        f"tied into {number}. The grouped split never has a group on both sides. "
        f"{count(mixed, 'group')} {hold} images of several classes."
    )


def describe_progress(runs: pd.DataFrame, planned: int) -> str:
    """Return how many published runs there are, and which of them have fewer epochs than planned."""
    if not len(runs):
        return "No published row has been trained under this profile yet."
    text = f"{count(len(runs), 'run')} of published rows {agree(len(runs), 'has', 'have')} been trained"
    short = runs[runs.epochs < planned]
    if not len(short):
        return f"{text}, for {planned} epochs."
    names = []
    for run in short.to_dict("records"):
        names.append(f"{run['name']} seed {run['seed']} ({tell_end(run)})")
    listed = "; ".join(names)
    return f"{text}; {len(short)} short of the {planned} epochs planned: {listed}."


def describe_equal_rows(rows: pd.DataFrame) -> str:
    """Return which rows of `busi.report.tables.place_rows` have equal numbers here, and why; empty if none do."""
    trained = rows[rows.n_runs > 0]
    sentences = []
    for _, equal in trained.groupby(["loss", "accuracy", "auc"]):
        if len(equal) > 1:
            names = " and ".join(equal.row)
            fates = " and ".join(dict.fromkeys(equal.fates))
            sentences.append(f"Our runs of {names} have the same loss, accuracy and AUC (fates: {fates}).")
            if equal.fates.str.endswith(" dead").all():
                sentences.append(
                    "The output of a dead network no longer depends on the image: these numbers follow from the masks "
                    "and their order, which the runs share."
                )
    return " ".join(sentences)


def describe_heldout_progress(counts: dict[str, tuple[int, int]]) -> str:
    """Return how many of the planned held-out runs have been trained at each size, and what that means for the tables.

    Args:
        counts: As `busi.report.heldout.count_by_size`.
    """
    # There may be runs of an earlier plan as well.
    told = [f"{min(finished, planned)} of {planned} at {size}" for size, (finished, planned) in counts.items()]
    text = f"Held-out runs that have been trained: {'; '.join(told) or 'none, because none is planned'}."
    if any(0 < finished < planned for finished, planned in counts.values()):
        text += " Rows with different numbers of images or runs cannot be compared; the pairwise table takes only "
        text += "images, folds and seeds that both variants have."
    return text


def describe_outlines(outlines: pd.DataFrame) -> str:
    """Return the caption of `busi.report.figures.outlines`, with the number of runs behind each variant's cases."""
    fewest = outlines.n_runs.min()
    most = outlines.n_runs.max()
    runs = count(most, "run") if fewest == most else f"{fewest} to {most} runs"
    return (
        f"Outlines of the best, median and worst held-out lesion among those of {runs} of each variant, all drawn "
        "equally large. The tables are of all its runs; their median is that of means over seeds."
    )


def describe_power(power: pd.DataFrame) -> str:
    """Return which difference the median comparison of ``power.csv`` can detect, and how many runs it would need.

    Each size has sentences of its own, because their numbers of runs differ.
    """
    sizes = []
    for size, own in power.groupby("size", sort=False):
        sizes.append(f"At {name_size(size)}, {_describe_power(own)}")
    return " ".join(sizes) or "There are no two variants to compare yet."


def _describe_power(power: pd.DataFrame) -> str:
    # Missing where no fold has a second group of near-duplicates.
    if power.smallest.isna().all():
        return "the smallest difference that could be detected is not known."
    pairs = count(len(power), "pair")
    smallest = power.smallest.median()
    text = (
        f"a pair of variants shows a difference with a chance of 80% only if it is about {smallest:.3f} Dice or larger "
    )
    text += f"(median of {pairs}, before Holm's correction). Smaller ones can stay unseen: not told apart does not "
    text += "mean equal. "
    # Missing with one seed a fold.
    known = power.runs_needed.dropna()
    if not len(known):
        return f"{text}How many runs would show a difference of {TARGET} is not known with one seed a fold."
    needed = known.median()
    runs = f"{needed:.0f} runs a variant"
    if np.isinf(needed):
        runs = "more images or folds, whatever the number of seeds"
    of = f"the {len(known)} pairs with several seeds a fold" if len(known) < len(power) else "the pairs"
    text += f"A difference of {TARGET} would need {runs} (median of {of}"
    never = np.isinf(known).sum()
    if 0 < never < len(known) / 2:
        text += f"; in {never} of them no number of runs is enough"
    return f"{text}). These numbers rest on the variance between folds, which so few folds estimate only roughly."


def describe_study(parameters: Parameters, images: pd.DataFrame, progress: str) -> dict[str, str]:
    """Return facts about the data and the size of a study, and the ``progress`` of its runs, by name."""
    lesions = (images.image_class != "normal").sum()
    # The protocol's baseline, which every other held-out run changes.
    heldout = RunConfig(**parameters.heldout_fields())
    seeds = count(len(parameters.heldout_seeds), "seed")
    facts = {
        "Images": f"{len(images)}, {lesions} of them with a lesion; the four families are trained on these alone",
        "Data": name_data(parameters, images),
        "Our runs, published protocol": f"{_describe_network(parameters)} in {parameters.precision}, batches of one "
        "image",
        "Runs of the paper": "300² pixels (the published accuracy fits 572², too), 64 to 1024 filters, 75 epochs",
        "Trained": progress,
        "Our runs, held-out protocol": f"{_describe_network(heldout)} at most, batches of {heldout.batch_size}, "
        f"{seeds} a fold",
    }
    if parameters.second_size:
        second = RunConfig(**parameters.heldout_fields(SECOND))
        seeds = count(len(parameters.second_seeds), "seed")
        facts["The same, second size"] = f"{_describe_network(second)} at most, {seeds} a fold"
    return facts


def _describe_network(settings: Parameters | RunConfig) -> str:
    filters = settings.base_filters
    return f"{settings.image_size}² pixels, {filters} to {16 * filters} filters, {settings.epochs} epochs"


def name_data(parameters: Parameters, images: pd.DataFrame) -> str:
    """Return what a study's images are: phantoms, BUSI, or the name of another folder."""
    if parameters.data_dir == "phantom":
        return "phantom: synthetic images"
    if is_released(images):
        return "BUSI"
    # A report that is drawn without its data does not know where they were.
    return f"{Path(parameters.data_dir).name or 'images'} (not the BUSI release)"


def _describe_training(config: str) -> str:
    """Return the settings of a run that its training depends on, from all of them; both as JSON."""
    settings = json.loads(config)
    return json.dumps({name: value for name, value in settings.items() if name not in ANSWERS}, sort_keys=True)


def describe_making(runs: pd.DataFrame) -> dict[str, str]:
    """Return facts about when, on what and with which software runs were trained, by name; none without a run."""
    if not len(runs):
        return {}
    facts = {}
    # Early versions did not record the day of a run.
    days = sorted(runs.finished.dropna())
    if days:
        # A single day is named once.
        facts["Trained"] = " to ".join(dict.fromkeys([days[0], days[-1]]))
    # Runs that differ only in how they predict share one training, and its time.
    trainings = runs[~runs.config.map(_describe_training).duplicated()]
    hours = trainings.seconds.sum() / 3600
    facts["Training time"] = f"{hours:.1f} hours in {count(len(trainings), 'training')}"
    superseded = (runs.training_version.astype(int) != TRAINING_VERSION).sum()
    if superseded:
        facts["Training code"] = f"{superseded} of {len(runs)} runs by an earlier version, whose numbers differ"
    machines = []
    software = []
    for run in runs.to_dict("records"):
        gpus = count(run["gpus"], "GPU") if run["gpus"] else "no GPUs"
        machines.append(_MACHINE.format(gpus_in_words=gpus, **run))
        software.append(_SOFTWARE.format(**run))
    facts["Machine"] = "; ".join(dict.fromkeys(machines))
    facts["Software"] = "; ".join(dict.fromkeys(software))
    return facts
