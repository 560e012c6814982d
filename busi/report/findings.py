"""Sentences computed from the numbers: what the tables and figures of a report show.

Tables come from `busi.report.tables` and `busi.report.heldout`; `runs` and `epochs` from `busi.results.Results`.
"""

from pathlib import Path

import pandas as pd

from busi.config import BORDER, Parameters, RunConfig
from busi.dataset.catalog import is_released
from busi.published import published_row
from busi.report.tables import NO_PUBLISHED, NOT_COMPARABLE, REPRODUCED, is_comparable, tell_end
from busi.results import is_superseded
from busi.scoring.predictors import MEAN_MASK

# Sentences with places for the columns of a table.
_ROW = (
    "**{method}**{short} ends at loss {loss:.4f} (published {published_loss:.4f}, floor {floor_loss:.4f}), "
    "accuracy {accuracy:.4f} ({published_accuracy:.4f}), AUC {auc:.4f} ({published_auc:.4f}); {fates}: {verdict}."
)

_OWN_ROW = (
    "**{method}**{short} ends at loss {loss:.4f} (floor {floor_loss:.4f}), accuracy {accuracy:.4f}, AUC {auc:.4f}; "
    "{fates}."
)

_SCORE = (
    "**{variant}** has a mean Dice of {dice:.3f} (95 % interval {dice_low:.3f} to {dice_high:.3f}; {images}, {runs}) "
    "at a pixel accuracy of {accuracy:.3f}."
)

_WIDEST = (
    "The widest difference is {a} − {b}: {difference:+.3f} Dice (95 % interval {low:+.3f} to {high:+.3f}), "
    "on {n_images} images."
)

_MACHINE = "{processor}, {cores} cores ({threads} used by a run), {gpus_in_words}"

_SOFTWARE = "Python {python}, Keras {keras} on {backend} {backend_version}, NumPy {numpy}"


def describe_rows(table: pd.DataFrame, planned: int) -> str:
    """Return where each row of `compare_rows` ends, its paper and floor, the fates of its runs, and the verdict.

    Args:
        table: Table of a family.
        planned: Epochs that the profile plans.
    """
    sentence = _ROW if is_comparable(table) else _OWN_ROW
    sentences = []
    for row in table.to_dict("records"):
        if not row["n_runs"]:
            sentences.append(f"**{row['method']}** has not been run yet.")
            continue
        short = "" if row["epochs"] == planned else f" (after {row['epochs']} of {planned} epochs)"
        sentences.append(sentence.format(short=short, **row))
    return " ".join(sentences)


def answer_in_short(rows: pd.DataFrame, verdicts: pd.DataFrame, scores: pd.DataFrame) -> list[str]:
    """Return what came out in three short sentences: of the published rows, of the claims, and of the networks.

    Args:
        rows: As `busi.report.tables.place_rows`.
        verdicts: As `busi.report.claims.read_verdicts`.
        scores: As ``heldout.csv``.
    """
    blind = (rows.reached_by != "none").sum()
    reproduced = (rows.verdict == REPRODUCED).sum()
    counts = verdicts.verdict.value_counts(sort=False)
    claims = ", ".join(f"{count} {agree(count, 'is', 'are')} {verdict}" for verdict, count in counts.items())
    beyond = len(rows) - blind
    here = f"{reproduced or 'none'} {agree(reproduced, 'is', 'are')} reproduced here"
    if not rows.n_runs.sum():
        here = "none has been trained here yet"
    first = (
        f"**{beyond or 'None'} of {len(rows)} published rows** {agree(beyond, 'beats', 'beat')} every predictor that "
        f"never looks at the image; {here}."
    )
    second = f"**Of {len(verdicts)} claims**, {claims}, on images never trained on."
    sentences = [first if is_comparable(rows) else NO_PUBLISHED, second]
    trained, mask = scores[scores.n_runs > 0].dice.dropna(), scores[scores.variant == MEAN_MASK].dice
    if len(trained):
        sentences.append(
            f"**Dice there** is {trained.min():.3f} to {trained.max():.3f} for our networks, {mask.iloc[0]:.3f} for "
            "the mean of all masks."
        )
    return sentences


def describe_placement(rows: pd.DataFrame, widths: pd.DataFrame) -> str:
    """Return which published rows predictors that never look reach, which are reproduced at which width, and the rest.

    Args:
        rows: As `busi.report.tables.place_rows`.
        widths: As `busi.report.widths.compare_widths`.
    """
    if (rows.reached_by == NOT_COMPARABLE).all():
        return NO_PUBLISHED
    reached = rows.groupby("reached_by").row.agg(_join_names)
    parts = [f"{reached[name]}: reached by {name}" for name in ("a constant", "two biases") if name in reached]
    if "the mean mask" in reached:
        parts.append(f"{reached['the mean mask']}: an AUC not above that of the mean mask")
    learned = reached.get("none", "none")
    text = f"Of the {len(rows)} distinct published rows, beyond every predictor that never looks are {learned}."
    if parts:
        text += f" The others are not: {'; '.join(parts)}."
    trained = widths[widths.n_runs > 0]
    if not len(trained):
        return f"{text} None has been trained here yet."
    again = trained[trained.verdict == REPRODUCED]
    neither = rows.row[(rows.reached_by == "none") & ~rows.row.isin(again.row)]
    counts = [_count_reproduced(own) for _, own in trained.groupby("filters", sort=False)]
    return (
        f"{text} Trained here, every run in a mixed order of its own, are reproduced {'; '.join(counts)}. Neither "
        f"reproduced nor reached without looking: {_join_names(neither) or 'none'}."
    )


def _count_reproduced(trained: pd.DataFrame) -> str:
    """Return how many rows of one width are reproduced: "at 16 filters (float32, 1 to 3 runs a row) 1 of 9 (DICE)"."""
    fewest, most = trained.n_runs.min(), trained.n_runs.max()
    runs = with_noun(most, "run") if fewest == most else f"{fewest} to {most} runs"
    again = trained.row[trained.verdict == REPRODUCED]
    names = f" ({_join_names(again)})" if len(again) else ""
    precision = ", ".join(sorted(set(trained.precision)))
    return (
        f"at {trained.filters.iloc[0]} filters ({precision}, {runs} a row) {len(again) or 'none'} of {len(trained)}"
        f"{names}"
    )


def _join_names(names: pd.Series) -> str:
    # A name may end with a full stop of its own: "Resize+Norm+Std+Aug."
    return ", ".join(names).rstrip(".")


def describe_floors(floors: dict[str, float], *, comparable: bool = True) -> str:
    """Return what a predictor that never looks scores, the published Dice row beside it, and a constant's lowest BCE.

    Args:
        floors: As `busi.scoring.floors.constant_floors`.
        comparable: As `busi.study.compares_with_paper`; if not, the published row is left out.
    """
    text = f"The Dice loss of that predictor is {floors['dice_loss']:.4f} and its AUC {floors['auc']:.4f}"
    if comparable:
        row = published_row("loss", "DICE")
        text += f"; the published row DICE has {row['loss']:.4f} and {row['auc']:.4f}"
    return (
        f"{text}. The lowest binary cross-entropy that a constant probability of lesion reaches is {floors['bce']:.4f}."
    )


def describe_dataset(images: pd.DataFrame) -> str:
    """Return how many images and lesions there are, and how small lesions are, of `catalog.describe_images`."""
    # Normal images would lower the share, and have no lesion to miss.
    lesions = images[images.image_class != "normal"]
    share = lesions.lesion_share
    several = (lesions.masks > 1).sum()
    have = agree(several, "image has", "images have")
    return (
        f"{len(images)} images, {len(lesions)} with a lesion. Half of the lesions cover less than {share.median():.1%} "
        f"of their image, so a predictor that never finds one is still right on {1 - share.mean():.1%} of the pixels. "
        f"{several} {have} more than one mask; the published code reads only the first."
    )


def describe_positions(images: pd.DataFrame, shares: pd.DataFrame) -> str:
    """Return where lesions lie and how much of them is known without looking.

    Args:
        images: As `busi.dataset.audit.describe_pixels`.
        shares: As `busi.dataset.audit.mean_mask`.
    """
    lesions = images.dropna(subset=["row"])
    middle = lesions.row.between(0.25, 0.75) & lesions.column.between(0.25, 0.75)
    brighter = (lesions.inside > lesions.ring).sum()
    return (
        f"The centre of {middle.mean():.0%} of the lesions lies in the middle quarter of the image. The place covered "
        f"most often is lesion in {shares.to_numpy().max():.0%} of the lesion images: so much is known without "
        f"looking. {brighter or 'None'} of {len(lesions)} lesions {agree(brighter, 'is', 'are')} brighter than the "
        "band around them; darkness is the plainest sign of the others."
    )


def describe_duplicates(split: pd.DataFrame, counts: pd.DataFrame, bound: int) -> str:
    """Return how many pairs the hashes find, how many images are grouped, and in how many groups labels conflict.

    Args:
        split: As `busi.dataset.splits.make_split`.
        counts: As `busi.dataset.duplicates.count_distances`.
        bound: Largest distance between near-duplicates, in bits of 64.
    """
    groups = split.groupby("group").image_class.agg(["size", "nunique"])
    # A group of one is an image without near-duplicates.
    several = groups[groups["size"] > 1]
    near = counts.pairs[counts.distance <= bound].sum()
    number = with_noun(len(several), "group")
    if len(several):
        number += f", the largest of {several['size'].max()}"
    mixed = int((several["nunique"] > 1).sum())
    return (
        f"{near} of {counts.pairs.sum():,} pairs of images differ in at most {bound} bits of both hashes. With the "
        f"crops that the match finds, {several['size'].sum()} of {len(split)} images are tied into {number}; a group "
        f"is never on both sides of a split. {with_noun(mixed, 'group')} {agree(mixed, 'holds', 'hold')} images of "
        "several classes."
    )


def compare_with_audit(groups: pd.DataFrame) -> str:
    """Return how many images and groups a published audit of BUSI names beside ours.

    Args:
        groups: As `busi.report.tables.count_groups`; the sentence is empty for another data set than BUSI.
    """
    if "audit" not in groups:
        return ""
    number = groups[["groups", "audit"]].sum()
    images = groups[["groups", "audit"]].mul(groups.images, axis=0).sum()
    return (
        f"A published audit of BUSI by structural similarity names {images.audit} images in {number.audit} groups; "
        f"here there are {images.groups} images in {number.groups}."
    )


def describe_progress(runs: pd.DataFrame, planned: int) -> str:
    """Return how many published runs there are, and which of them have fewer epochs than planned."""
    if not len(runs):
        return "No run has been trained under this profile yet."
    text = f"{len(runs)} {agree(len(runs), 'run has', 'runs have')} been trained under this profile"
    short = runs[runs.epochs < planned]
    if not len(short):
        everyone = "all of them " if len(runs) > 1 else ""
        return f"{text}, {everyone}for {planned} epochs."
    names = [_tell_short_run(run) for run in short.to_dict("records")]
    stop = agree(len(short), "stops", "stop")
    return f"{text}; {len(short)} of them {stop} short of the {planned} epochs planned: {'; '.join(names)}."


def _tell_short_run(run: dict) -> str:
    name = f"{run['name']} seed {run['seed']}"
    # A run that was planned shorter has no reason of its own.
    return f"{name} after {run['epochs']}" if run["end"] == "planned" else f"{name} ({tell_end(run)})"


def describe_heldout_progress(finished: int, planned: int) -> str:
    """Return how many of the planned held-out runs have been trained, and what that means for their tables."""
    if not finished:
        return f"No held-out run has been trained yet; {planned} {agree(planned, 'is', 'are')} planned."
    # Runs of an earlier plan may be there as well.
    if finished >= planned:
        return f"All {planned} held-out runs have been trained."
    return (
        f"{finished} of {planned} held-out runs have been trained. Rows with different numbers of images cannot be "
        "compared; the pairwise table takes only images that both variants have scored."
    )


def name_runs(counts: dict[str, tuple[int, int]], what: str) -> str:
    """Return how many runs of which variants are ``what``; empty if there are none.

    Args:
        counts: Variant -> the number of such runs and of all its runs.
        what: Begins the sentence.
    """
    parts = [f"{variant} {some} of {runs}" for variant, (some, runs) in counts.items()]
    return f"{what}: {', '.join(parts)}." if parts else ""


def describe_normals(table: pd.DataFrame) -> str:
    """Return on how many images without a lesion the networks of ``heldout.csv`` mark one; empty without any."""
    trained = table[table.n_runs > 0].dropna(subset="normals_fpr")
    if not len(trained):
        return ""
    low, high = trained.normals_fpr.min(), trained.normals_fpr.max()
    return f"On images without a lesion, the networks mark one in {low:.0%} to {high:.0%} of their predictions."


def describe_power(power: pd.DataFrame) -> str:
    """Return what the comparisons of ``power.csv`` can tell, of the median pair."""
    if not len(power):
        return "There are no two variants to compare yet."
    if power.smallest.isna().all():
        return "One run a variant cannot tell how large a difference has to be."
    needed = power.runs_needed.median()
    runs = f"{needed:.0f} runs a variant" if needed < float("inf") else "more images, whatever the number of runs"
    return (
        f"For the median of {with_noun(len(power), 'pair')}, this design tells a difference of "
        f"{power.smallest.median():.3f} Dice or more in four of five cases; one of 0.01 would need {runs}."
    )


def describe_scores(table: pd.DataFrame) -> str:
    """Return each predictor's mean Dice, its images and its pixel accuracy; of `Answers.table`."""
    sentences = []
    for row in table.to_dict("records"):
        if not row["n_images"]:
            sentences.append(f"**{row['variant']}** has not been run yet.")
            continue
        images = with_noun(row["n_images"], "image")
        runs = with_noun(row["n_runs"], "run") if row["n_runs"] else "untrained"
        sentences.append(_SCORE.format(images=images, runs=runs, **row))
    return " ".join(sentences)


def describe_parts(parts: pd.DataFrame) -> str:
    """Return each predictor's mean Dice on each part of the images; of `Answers.parts`."""
    rows = []
    for variant, table in parts.groupby("variant", sort=False):
        scores = [f"{row.part} {row.dice:.3f}" for row in table.itertuples()]
        rows.append(f"{variant}: {', '.join(scores)}")
    return f"Mean Dice by class and size of the lesion. {'; '.join(rows)}."


def describe_pairs(pairs: pd.DataFrame, alpha: float) -> str:
    """Return how many pairs of variants in `Answers.pairs` differ at the level ``alpha``, and the widest difference."""
    # Those without dead runs repeat pairs, and untrained predictors have a correction of their own.
    pairs = pairs[pairs.kind.isin(["variants", "A/A"])]
    if not len(pairs):
        return "There are no two variants to compare yet."
    apart = (pairs.p_holm < alpha).sum()
    widest = pairs.loc[pairs.difference.abs().idxmax()]
    verb = agree(apart, "differs", "differ")
    counted = f"{apart} of {with_noun(len(pairs), 'pair')} {verb} at p < {alpha} after Holm's correction."
    return f"{counted} {_WIDEST.format(**widest)}"


def describe_reliability(curves: pd.DataFrame) -> str:
    """Return how often the most confident pixels of each network are lesion; of `Answers.reliability`."""
    rows = []
    for variant, curve in curves.groupby("variant", sort=False):
        # The bins go up: the last one holds the most confident pixels.
        last = curve.iloc[-1]
        rows.append(
            f"{variant}: of the pixels with a mean probability of {last.predicted:.2f}, the highest bin, "
            f"{last.observed:.1%} are lesion"
        )
    return f"Observed share of lesion against predicted probability. {'; '.join(rows) or 'No network has run yet'}."


def describe_loss_curve(method: str, epochs: pd.DataFrame, published: float) -> str:
    """Return where the training loss of each run of a method starts and ends, and the paper's loss at the end.

    Args:
        method: Name of the row.
        epochs: Of its runs.
        published: Missing (NaN) where the images are not the paper's.
    """
    ends = []
    for seed, losses in epochs.groupby("seed", sort=False).loss:
        ends.append(f"seed {seed} goes from {losses.iloc[0]:.4f} to {losses.iloc[-1]:.4f} in {len(losses)} epochs")
    text = f"Training loss of {method}: {'; '.join(ends) or 'not run yet'}"
    return f"{text}." if pd.isna(published) else f"{text}; published {published:.4f} after 75."


def describe_network(blocks: list[dict]) -> str:
    """Return the sizes and filters of a network's feature maps, as `busi.model.unet.feature_blocks`."""
    return "U-Net: " + ", ".join(f"{block['size']} pixels with {block['filters']} filters" for block in blocks)


def describe_size(parameters: Parameters, images: pd.DataFrame, progress: str) -> dict[str, str]:
    """Return data and size of a study, and the ``progress`` of its runs, by name of the fact."""
    lesions = (images.image_class != "normal").sum()
    filters = parameters.base_filters
    # The protocol's baseline, of which every other held-out run is a change.
    heldout = RunConfig(**parameters.heldout_fields())
    return {
        "Images": f"{len(images)}, of which {lesions} with a lesion are trained on",
        "Data": name_data(parameters, images),
        "Input and output": f"{parameters.image_size}² and {parameters.image_size - BORDER}² pixels",
        "Network": f"{filters} to {16 * filters} filters (published: 64 to 1024)",
        "Epochs": f"{parameters.epochs} (published: 75), batches of one image",
        "Arithmetic": parameters.precision,
        "Runs": progress,
        "Held-out runs": (
            f"{heldout.image_size}² pixels, aspect ratio kept, {heldout.base_filters} to {16 * heldout.base_filters} "
            f"filters, at most {heldout.epochs} epochs in batches of {heldout.batch_size}; scored at each image's own "
            f"size; {with_noun(len(parameters.heldout_seeds), 'seed')} a fold"
        ),
    }


def name_data(parameters: Parameters, images: pd.DataFrame) -> str:
    """Return what a study's images are: phantoms, BUSI, or the name of another folder."""
    if parameters.data_dir == "phantom":
        return "phantom: synthetic images"
    if is_released(images):
        return "BUSI"
    # A report that is drawn without its data does not know their folder.
    return f"{Path(parameters.data_dir or '').name or 'images'} (not the BUSI release)"


def describe_making(runs: pd.DataFrame) -> dict[str, str]:
    """Return when, on what and with which software runs were trained, by name of the fact; nothing without a run."""
    if not len(runs):
        return {}
    facts = {}
    # Runs of early versions have not recorded their day.
    days = sorted(runs.finished.dropna())
    if days:
        # One day is told once.
        facts["Trained"] = " to ".join(dict.fromkeys([days[0], days[-1]]))
    facts["Training time"] = f"{runs.seconds.sum() / 3600:.1f} hours in {len(runs)} runs"
    # Runs that were trained by code whose numbers have changed since.
    superseded = sum(is_superseded(run) for run in runs.itertuples())
    if superseded:
        facts["Training code"] = f"{superseded} of {len(runs)} runs by an earlier version, whose numbers differ"
    machines = []
    software = []
    for run in runs.to_dict("records"):
        gpus = with_noun(run["gpus"], "GPU") if run["gpus"] else "no GPUs"
        machines.append(_MACHINE.format(gpus_in_words=gpus, **run))
        software.append(_SOFTWARE.format(**run))
    facts["Machine"] = "; ".join(dict.fromkeys(machines))
    facts["Software"] = "; ".join(dict.fromkeys(software))
    return facts


def with_noun(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless there is one: "1 run", "2 runs"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def agree(count: int, one: str, many: str) -> str:
    """Return the form of a word that goes with a number."""
    return one if count == 1 else many
