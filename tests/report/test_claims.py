"""Verdicts follow the numbers: the rule at its edges, each claim with numbers for it, against it and neither."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from small_study import make_study, numbers

from busi import config
from busi.config import RunConfig
from busi.published import table_number
from busi.report import claims, figures
from busi.report.claims import NOT_UPHELD, UNDECIDED, UPHELD, Comparison
from busi.results import NotMeasured, read_findings

# The intervals here have no width or lie far from every limit.
pytestmark = pytest.mark.usefixtures("few_resamples")

IMAGES = 40
CHANCE = np.random.default_rng(0).normal(0, 0.2, IMAGES)
CHANCE -= CHANCE.mean()
"""Differences that average to nothing: with 40 images their interval reaches beyond the margin on both sides."""

KLD = {"loss": "kld"}


def comparison(low, high, p=0.001):
    return Comparison("A", "B", (low + high) / 2, low, high, p, 100)


def train_twice(make_heldout, label, dice, settings):
    """Return two runs with the same scores: one alone decides nothing."""
    return [make_heldout(label, dice, settings=settings | {"seed": seed}) for seed in (0, 5)]


def variants_of(family):
    return config.read_family(family, config.read_profile("smoke")).heldout_variants


@pytest.fixture
def verdict(make_heldout, make_answers):
    """Judges a claim from variant -> Dice scores, and those of all others; a variant without any has no run."""

    def judge(number, scores=None, others=None):
        family = claims.read_claims()[number]["family"]
        variants = variants_of(family)
        dice = dict.fromkeys(variants, others) | (scores or {})
        runs = []
        for label, own in dice.items():
            if own is not None:
                runs += train_twice(make_heldout, label, np.clip(own, 0, 1), variants[label])
        planned = {label: [] for label in variants}
        return claims.judge([make_answers(*runs, family=family, planned=planned)])

    return judge


# The rule


@pytest.mark.parametrize(
    ("compared", "answer"),
    [
        (comparison(0.001, 0.1), True),
        (comparison(0.001, 0.01), True),  # better by little is better
        (comparison(0.001, 0.1, p=0.05), None),  # the test has to agree
        (comparison(0.0, 0.1), None),
        (comparison(-0.01, 0.02), None),
        (comparison(-0.01, 0.0199), False),  # no advantage that matters
        (comparison(-0.01, 0.0199, p=1.0), False),
        (comparison(-0.3, -0.1), False),
        (comparison(-0.3, 0.3, p=1.0), None),
        (comparison(np.nan, np.nan, p=1.0), None),
    ],
)
def test_a_beats_b(compared, answer):
    assert claims.beats(compared) is answer
    assert claims.does_not_beat(compared) is {True: False, False: True, None: None}[answer]


@pytest.mark.parametrize(
    ("compared", "answer"),
    [
        (comparison(-0.0199, 0.0199, p=1.0), True),
        (comparison(0.001, 0.0199), True),  # significant, and still alike
        (comparison(-0.02, 0.01, p=1.0), None),
        (comparison(0.01, 0.2), None),  # differs, but perhaps by less than the margin
        (comparison(0.0201, 0.2), False),
        (comparison(-0.2, -0.0201), False),
        (comparison(0.0201, 0.2, p=0.06), None),
        (comparison(-0.3, 0.3, p=1.0), None),
    ],
)
def test_a_and_b_are_alike(compared, answer):
    assert claims.alike(compared) is answer


def test_what_the_stricter_test_cannot_tell_is_said_so():
    """Only a difference that the first test tells can be doubted by the second one."""
    doubt = ", though not told apart by the corrected resampled t test"
    better, worse, open_ = comparison(0.03, 0.1), comparison(-0.1, -0.03), comparison(-0.1, 0.1, p=0.5)
    strict = [(better, "better"), (worse, "worse")]
    for compared, told in strict:
        assert claims._tell_side(compared._replace(p_t_holm=0.05)) == told + doubt
        assert claims._tell_side(compared._replace(p_t_holm=0.049)) == claims._tell_side(compared) == told
    assert claims._tell_side(open_._replace(p_t_holm=0.9)) == "not told apart"
    # An interval beyond zero alone makes it neither better nor worse: the corrected test has to agree.
    assert claims._tell_side(worse._replace(p=0.06)).startswith("lower, though not told")
    assert claims._tell_side(better._replace(p=0.06)).startswith("higher, though not told")
    assert claims._tell_side(better._replace(p_t_holm=0.9, n_runs=1)).startswith("too few runs")
    # An advantage that the interval excludes, and the stricter test does not.
    no_better = comparison(-0.1, 0.01, p=0.5)
    assert claims._tell_side(no_better._replace(t_high=0.02)).endswith("does not exclude such an advantage")
    assert claims._tell_side(no_better._replace(t_high=0.019)) == "not better by 0.02 or more"
    assert doubt not in claims._tell_side(better._replace(p_t_holm=0.9, n_runs=1))


def test_one_pair_of_runs_answers_nothing():
    for compared in (comparison(0.1, 0.2), comparison(-0.3, -0.1), comparison(-0.01, 0.01)):
        once = compared._replace(n_runs=1, n_folds=1)
        assert claims.beats(once) is claims.does_not_beat(once) is claims.alike(once) is None
        assert claims.alike(once._replace(n_runs=2)) is not None
        # Several runs of some folds are no run of the others.
        assert claims.alike(once._replace(n_runs=5, folds_needed=2)) is None
        # However clear the difference is, what is missing is runs.
        told = claims._describe_comparisons([once], "better")
        assert told == [f"{once}: too few runs for a verdict (1, in 1 of 1 fold)."]


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ([True, True], UPHELD),
        ([True, None], UNDECIDED),
        ([True, False], NOT_UPHELD),
        ([None, False], NOT_UPHELD),
        ([None], UNDECIDED),
        ([], UNDECIDED),
    ],
)
def test_statements_decide_a_claim(answers, verdict):
    assert claims.decide(answers) == verdict


def test_a_pair_is_found_in_either_order(make_heldout, make_answers):
    a, b = make_heldout("A", [0.5, 0.9, 0.7]), make_heldout("B", [0.4, 0.5, 0.6], settings=KLD)
    pairs = make_answers(a, b).pairs
    forth, back = claims.find_comparison(pairs, "A", "B"), claims.find_comparison(pairs, "B", "A")
    assert forth.difference == pytest.approx(0.2)
    assert (back.a, back.b, back.difference) == ("B", "A", -forth.difference)
    assert (back.low, back.high) == (-forth.high, -forth.low)
    assert (back.p, back.n_images) == (forth.p, forth.n_images)
    assert claims.find_comparison(pairs, "A", "C") is None


# Claim 1: the one is better than the others


def test_the_best_is_upheld_refuted_or_left_open_by_its_scores(verdict):
    base = np.linspace(0.4, 0.6, IMAGES)
    best, other = "Conv2DTranspose", "Nearest, first step"
    better = verdict(1, {best: base + 0.1}, others=base).first
    assert better.verdict == UPHELD
    assert "+0.100 Dice" in better.evidence
    assert ": better." in better.evidence

    same = verdict(1, {best: base + 0.001 * np.sign(CHANCE)}, others=base).first
    assert same.verdict == NOT_UPHELD
    assert "not better by 0.02 or more" in same.evidence

    worse = verdict(1, {best: base - 0.1}, others=base).first
    assert worse.verdict == NOT_UPHELD
    assert ": worse." in worse.evidence

    unclear = verdict(1, {best: base + CHANCE}, others=base).first
    assert unclear.verdict == UNDECIDED
    assert ": not told apart." in unclear.evidence
    # Neither pair decides alone where both say the same, so both are told, in the order of the claim.
    for judged in (unclear, better, worse):
        assert re.findall(r"Nearest, (\w+) steps?", judged.reason) == ["first", "all"]

    partly = verdict(1, {best: base + 0.1, other: base + 0.3}, others=base).first
    assert partly.verdict == NOT_UPHELD
    assert partly.reason == "Conv2DTranspose minus Nearest, first step: -0.200 Dice (-0.200 to -0.200), worse"

    # The wider difference is open; the narrow one speaks against the claim, and so decides it.
    decided = verdict(1, {best: base, other: base - 0.05 + CHANCE}, others=base + 0.01).first
    assert (decided.verdict, "not told from chance" in decided.evidence) == (NOT_UPHELD, True)
    assert decided.reason == "Conv2DTranspose minus Nearest, all steps: -0.010 Dice (-0.010 to -0.010), worse"

    waiting = verdict(1, {best: base + 0.1, other: None}, others=base).first
    assert waiting.verdict == UNDECIDED
    assert "1 comparison waits for runs." in waiting.evidence


def test_a_claim_without_a_run_is_undecided_and_says_so(verdict):
    for number in (1, 2, 4):
        empty = verdict(number)
        assert empty.first.verdict == UNDECIDED
        assert empty.first.evidence.startswith("There is nothing to compare yet.")


# Claim 3: one function cannot be better than itself


def test_kld_is_not_the_best_whatever_was_measured(verdict):
    base = np.linspace(0.4, 0.6, IMAGES)
    for scores in ({"KLD": base + 0.1}, {"KLD": base - 0.1}, {"KLD": None}):
        judged = verdict(3, scores, others=base).first
        assert judged.verdict == NOT_UPHELD
        assert judged.reason.startswith(
            "KLD is the same function as BCE of the probabilities, so it cannot be better than that. The BCE that"
        )
    measured = verdict(3, {"KLD": base + 0.1}, others=base).first
    assert "KLD minus DICE of the lesion: +0.100 Dice" in measured.evidence
    # What would be said without the proof is told beside it.
    assert "By these scores alone, the claim would be upheld." in measured.evidence
    assert (
        verdict(3, {"KLD": base + 0.1}, others=base).row["basis"].startswith("proof, about BCE of the probabilities;")
    )


def test_kld_against_dice_is_told_without_dead_runs(make_heldout, make_answers):
    parts = []
    for fold, dead in enumerate((False, True)):
        parts.append(make_heldout("KLD", [0.5] * 4, fold=fold, settings=KLD))
        settings = {"loss": "lesion-dice"}
        scores = {"dice": [0.0] * 4, "marked": 0.0} if dead else {"dice": [0.4] * 4}
        parts.append(make_heldout("DICE of the lesion", fold=fold, settings=settings, **scores))
    planned = {label: [] for label in variants_of("loss")}
    evidence = claims.judge([make_answers(*parts, planned=planned)]).first.evidence
    assert "KLD minus DICE of the lesion: +0.100 Dice" in evidence
    assert "+0.300" not in evidence
    # The dead run had no time to learn, perhaps: how late the other one found its first lesion is told beside it.
    dead = evidence[evidence.index("gave every pixel the same answer: ") :]
    assert "DICE of the lesion 1 of 2." in dead and "It was stopped early" in dead
    # Stopped after two epochs; the other run found a lesion in the second.
    assert numbers(dead)[:4] == ["1", "2", "2", "2"]


def test_runs_keep_their_counterparts_where_others_are_dead(make_heldout, make_answers):
    """The first seed of one variant is dead: its second one stands opposite the other's second one, 0.1 apart."""
    parts = []
    for seed, kld, dice in ((0, 0.9, 0.0), (5, 0.5, 0.4)):
        parts.append(make_heldout("KLD", [kld] * 4, settings=KLD | {"seed": 1000 + seed}))
        marked = 0.1 if dice else 0.0
        parts.append(make_heldout("DICE", [dice] * 4, marked=marked, settings={"loss": "dice", "seed": seed}))
    pairs = make_answers(*parts).pairs
    alive = pairs[pairs.kind == "alive"].iloc[0]
    assert (alive.n_runs, abs(alive.difference)) == (1, pytest.approx(0.1))


def test_what_lacks_runs_is_not_the_reason(make_heldout, make_answers):
    """The widest difference rests on one of two planned folds; the reason is the narrow one that has both."""
    parts = []
    for fold in (0, 1):
        parts.append(make_heldout("KLD", [0.5] * 4, fold=fold, settings=KLD))
        parts.append(make_heldout("DICE of the lesion", [0.4] * 4, fold=fold, settings={"loss": "lesion-dice"}))
        if fold == 0:
            for seed in (0, 5):
                settings = {"loss": "dice", "seed": seed}
                parts.append(make_heldout("DICE of both channels", [0.1] * 4, settings=settings))
    answers = make_answers(*parts)
    judged = claims.judge([answers]).first
    assert judged.reason.endswith(
        "Measured beside it: KLD minus DICE of the lesion: +0.100 Dice (+0.100 to +0.100), better"
    )
    assert "too few runs for a verdict (1, in 1 of 2 folds)" in judged.evidence
    # The proof itself is told at the first size.
    second = claims.judge([answers, answers]).second
    assert second.reason.startswith("by the same proof; measured beside it: KLD minus DICE of the lesion: +0.100")


def test_the_function_that_equals_kld_is_told_beside_it(verdict):
    base = np.linspace(0.4, 0.6, IMAGES)
    scores = {"KLD": base + 0.1, "BCE": base + 0.05, "DICE of the lesion": base - 0.1}
    judged = verdict(3, scores, others=base).first
    twin = [
        "BCE minus DICE of both channels: +0.050 Dice (+0.050 to +0.050), better",
        "BCE minus DICE of the lesion: +0.150 Dice (+0.150 to +0.150), better",
    ]
    for each in twin:
        assert each in judged.evidence
    assert judged.reason.partition("Measured beside it: ")[2].split("; ") == [
        "KLD minus DICE of both channels: +0.100 Dice (+0.100 to +0.100), better",
        "KLD minus DICE of the lesion: +0.200 Dice (+0.200 to +0.200), better",
        *twin,
    ]


# Claim 2: all alike


def test_optimizers_are_alike_differ_or_are_left_open(verdict):
    base = np.linspace(0.4, 0.6, IMAGES)
    alike = verdict(2, {"Adam, LR 0.001": base + 0.005}, others=base).first
    assert alike.verdict == UPHELD
    # Pairs; alike within the margin, different, open.
    assert numbers(alike.evidence)[:5] == ["21", "21", "0.02", "0", "0"]

    apart = verdict(2, {"Adam + fixed LR": base - 0.3}, others=base).first
    assert apart.verdict == NOT_UPHELD
    assert numbers(apart.evidence)[:5] == ["21", "15", "0.02", "6", "0"]
    assert "The largest difference: SGD + fixed LR minus Adam + fixed LR: +0.300 Dice" in apart.evidence
    assert "Adam + fixed LR is in 6 of the 6 pairs that differ." in apart.evidence
    # Three of these are with other rows of the paper's table.
    assert "Of the 6 pairs of settings that the paper compares, 3 differ by more." in apart.evidence
    assert "pairs that differ" not in alike.evidence

    both = verdict(2, {"Adam + fixed LR": base - 0.3, "SGD + fixed LR": base + 0.3}, others=base).first
    assert "SGD + fixed LR and Adam + fixed LR are each in 6 of the 11 pairs that differ." in both.evidence

    unclear = verdict(2, {"Adam + fixed LR": base + CHANCE}, others=base).first
    assert unclear.verdict == UNDECIDED

    # The widest pair has a setting that is not in the paper; the reason is the widest of those that it compares.
    wider = verdict(2, {"Adam + fixed LR": base - 0.3, "Adam, LR 0.0001": base - 0.35}, others=base).first
    assert "The largest difference: SGD + fixed LR minus Adam, LR 0.0001: +0.350 Dice" in wider.evidence
    decided, beside = wider.reason.split("; ")
    assert decided == "SGD + fixed LR minus Adam + fixed LR: +0.300 Dice (+0.300 to +0.300)"
    # The published pair of the schedules differs in the momentum, too.
    assert "SGD + momentum + decaying LR minus SGD + fixed LR: " in beside


def test_runs_that_reach_the_last_epoch_are_part_of_the_evidence(make_heldout, make_answers):
    """The fixture trains two epochs: a run planned for two was ended by the plan, one planned for nine by patience."""
    runs = []
    for label, settings in (("SGD + fixed LR", {"optimizer": "sgd"}), ("Adam, LR 0.001", {})):
        for seed in (0, 5):
            epochs = 2 if (label, seed) == ("SGD + fixed LR", 5) else 9
            scores = np.linspace(0.4, 0.6, IMAGES)
            runs.append(make_heldout(label, scores, settings=settings | {"seed": seed, "epochs": epochs}))
    judged = claims.judge([make_answers(*runs, family="optimization")]).first
    assert "Runs that reached the last planned epoch: SGD + fixed LR 1 of 2." in judged.evidence
    # The pair that is the reason has such a run.
    assert judged.reason.endswith("; runs that reached the last planned epoch: SGD + fixed LR 1 of 2")


# Claim 4: no better


def test_that_preprocessing_does_not_help_falls_with_it_helping(verdict):
    base = np.linspace(0.4, 0.6, IMAGES)
    assert verdict(4, {"Resize+Norm+Std+Aug.": base + 0.1}, others=base).first.verdict == NOT_UPHELD
    assert verdict(4, {"Resize+Norm+Std+Aug.": base - 0.1}, others=base).first.verdict == UPHELD
    assert verdict(4, {"Resize+Norm+Std+Aug.": base + CHANCE}, others=base).first.verdict == UNDECIDED
    # The fault alone, a mask left where it was, is not what the claim is about.
    fault = verdict(4, {"Resize+Norm+Std+Aug. of the image alone": base + 0.3}, others=base)
    assert fault.first.verdict == UPHELD
    # It is told beside the claim.
    told = "Resize+Norm+Std+Aug. of the image alone minus No preprocess: +0.300 Dice (+0.300 to +0.300), "
    assert f"as in the public code, {told}better" in fault.first.reason
    assert f"as in the public code: {told}p < 0.001 after Holm" in fault.first.evidence


# Claim 5: the published metrics rank as Dice does


def scored(number, *, wrong=0, ties=0):
    """Return tables of scores, and of pairs that Dice tells apart; accuracy ranks some of them wrong or equal."""
    table, pairs = [], []
    for place in range(number):
        gap = 0.1 + 0.1 * place / number
        accuracy = {True: 0.8, False: 0.95}[place < wrong]
        if wrong <= place < wrong + ties:
            accuracy = 0.9
        for label, dice, own in ((f"a{place}", 0.3 + gap, accuracy), (f"b{place}", 0.3, 0.9)):
            row = {"family": "loss", "variant": label, "settings": label, "n_runs": 1, "size": "s"}
            table.append(row | {"dice": dice, "accuracy_half": own, "auc_pooled": dice, "loss": 1 - dice})
        pair = {"family": "loss", "a": f"a{place}", "b": f"b{place}", "difference": gap, "low": 0.05, "high": 0.3}
        pairs.append(pair | {"n_runs": 2, "n_folds": 1, "kind": "variants", "size": "s"})
    return pd.DataFrame(table), pd.DataFrame(pairs)


SIZES = [[SimpleNamespace(size="s", size_words="64 pixels", group=SimpleNamespace(configs=[]))]]


def ranked(number, **kinds):
    return claims.rank_pairs(SIZES, *scored(number, **kinds))


@pytest.mark.parametrize(
    ("number", "wrong", "ties", "verdict"),
    [
        (40, 0, 0, UPHELD),
        (40, 2, 0, UPHELD),  # one in twenty
        (40, 3, 0, NOT_UPHELD),
        (40, 0, 3, NOT_UPHELD),  # what ties is not told apart
        (19, 0, 0, UNDECIDED),
        (19, 19, 0, UNDECIDED),
    ],
)
def test_metrics_tell_if_they_rank_nineteen_of_twenty_pairs_as_dice_does(number, wrong, ties, verdict):
    judged = claims._judge_by_ranks(ranked(number, wrong=wrong, ties=ties), "64 pixels", "")
    assert judged.verdict == verdict
    right = number - wrong - ties
    # Of a few pairs, a percentage would say too much.
    share = f" ({right / number:.1%})" if number >= claims.ENOUGH else ""
    assert f"{number} pairs of predictors have a difference in Dice whose interval excludes 0" in judged.reason
    # What fails comes first.
    assert judged.reason.startswith("fewer than the 95% asked for are ranked alike by accuracy.") == (
        verdict == NOT_UPHELD
    )
    assert f" by accuracy {right}{share}," in judged.reason


def test_pairs_with_a_network_and_pairs_of_two_are_told_by_themselves():
    table, pairs = scored(40, wrong=3)
    # The first five pairs are of two untrained predictors, the next 25 of one and a network.
    untrained = [f"{side}{place}" for place in range(30) for side in ("ab" if place < 5 else "b")]
    table.loc[table.variant.isin(untrained), "n_runs"] = 0
    ranks = claims.rank_pairs(SIZES, table, pairs)
    reason = claims._judge_by_ranks(ranks, "64 pixels", "").reason
    all_pairs, mixed, networks = reason.split("Of the ")
    # The share that is asked for; intervals without 0; accuracy, pooled AUC and cross-entropy.
    assert numbers(all_pairs) == ["95", "40", "0", "37", "92.5", "40", "100.0", "40", "100.0"]
    # The three pairs that accuracy ranks wrong are among the first five.
    assert numbers(mixed) == ["35", "35", "100.0", "35", "100.0", "35", "100.0"]
    assert numbers(networks) == ["10"] * 4
    assert networks.endswith("too few to say anything about networks")
    order = ["accuracy", "pooled AUC", "cross-entropy"]
    assert re.findall("|".join(order), reason) == ["accuracy", *order * 3]


def test_the_widest_pair_that_a_metric_gets_wrong_is_named():
    judged = claims._judge_by_ranks(ranked(40, wrong=3), "64 pixels", "")
    assert re.search(r"By accuracy, a2 .* b2, .* 0\.105 higher\.$", judged.evidence)


def test_loss_ranks_the_other_way_round_and_pairs_in_either_order():
    table, pairs = scored(1)
    turned = pairs.assign(a=pairs.b, b=pairs.a, difference=-pairs.difference, low=-0.3, high=-0.05)
    for each in (pairs, turned):
        row = claims.rank_pairs(SIZES, table, each).iloc[0]
        assert (row.better, row.worse, row.accuracy_half, row.auc_pooled, row.loss) == ("a0", "b0", True, True, True)
    # Accuracy is asked at one half, as published, whatever it is at the threshold of the masks.
    assert claims.rank_pairs(SIZES, table.assign(accuracy=1 - table.accuracy_half), pairs).accuracy_half[0]
    worse = table.assign(loss=table.dice)
    assert not claims.rank_pairs(SIZES, worse, pairs).loss[0]


def test_only_what_dice_tells_apart_is_asked_about_and_once():
    table, pairs = scored(2)
    assert len(claims.rank_pairs(SIZES, table, pairs.assign(low=-0.01))) == 0
    assert len(claims.rank_pairs(SIZES, table, pairs.assign(kind="alive"))) == 0
    assert len(claims.rank_pairs(SIZES, table, pairs.assign(kind="A/A"))) == 0  # one function: neither is better
    assert len(claims.rank_pairs(SIZES, table, pairs.assign(n_runs=1))) == 0
    assert len(claims.rank_pairs(SIZES, table, pairs.assign(n_runs=[2, 0]))) == 2  # an untrained pair never varies
    assert len(claims.rank_pairs(SIZES, table, pairs.assign(n_runs=0))) == 0  # a size without any network
    # The same settings stand in another family under other names.
    again = table.assign(family="data", variant=table.variant + "'")
    twice = pairs.assign(family="data", a=pairs.a + "'", b=pairs.b + "'")
    assert len(claims.rank_pairs(SIZES, pd.concat([table, again]), pd.concat([pairs, twice]))) == 2


def test_claim_5_is_judged_at_each_size_from_the_tables(make_heldout, make_answers):
    sizes = [
        make_answers(*train_twice(make_heldout, "KLD", [0.6] * 8, KLD | {"image_size": pixels}), family="loss")
        for pixels in (32, 64)
    ]
    table = pd.concat([each.table for each in sizes])
    ranks = claims.rank_pairs([sizes], table, pd.concat([each.pairs for each in sizes]))
    judged = claims.judge_metrics([sizes], ranks)
    assert judged.first.size.startswith("32 pixels, 64 filters, at most 75 epochs, 2 seeds a fold")
    assert judged.second.size.startswith("64 pixels")
    # KLD stands against each of four blind predictors, and these against each other, at either size.
    assert ranks.groupby("size").better.value_counts()["64 pixels, 64 filters"].to_dict() == {"KLD": 4}


# Words


def test_a_verdict_is_reached_and_told_at_each_size(make_heldout, make_answers):
    base = np.linspace(0.4, 0.6, IMAGES)
    sizes = []
    for pixels, gain, seeds in ((32, 0.1, 2), (64, -0.1, 1)):
        runs = []
        for label, settings, scores in (
            ("Conv2DTranspose", {"upsampling": "Conv2DTranspose"}, base + gain),
            ("Nearest, first step", {}, base),
        ):
            for seed in range(seeds):
                size = {"image_size": pixels, "epochs": 9, "seed": seed}
                runs.append(make_heldout(label, scores, settings=settings | size))
        sizes.append(make_answers(*runs, family="upsampling"))
    judged = claims.judge(sizes)
    assert judged.short.startswith("**Upheld:** ")
    *_, title, second = judged.short.replace("Conv2DTranspose", "Conv").split("\n\n")
    # The sizes disagree, so that the title names its own.
    assert title.startswith("Learned upsampling is better, at 32 pixels. At 32 pixels, ")
    assert numbers(title.partition(". ")[2]) == ["32", "64", "9", "2", "+0.100", "+0.100", "+0.100"]
    assert title.endswith(", better.")
    assert second.startswith("At 64 pixels") and second.endswith(", undecided: too few runs for a verdict.")
    first, other = judged.evidence.split("\n\n")
    assert first.startswith("At 32 pixels") and ", upheld: " in first
    assert other.startswith("At 64 pixels") and ", undecided: " in other
    # One run of either says nothing about another training, however far apart the two are.
    assert judged.row["second_verdict"] == UNDECIDED
    assert judged.row["second_reason"] == "too few runs for a verdict"
    # A size that is planned and not trained has no verdict, not even an open one.
    planned = make_answers(family="upsampling", planned=sizes[1].group.variants)
    assert claims.judge([sizes[0], planned]).row["second_verdict"] == ""


def test_a_claim_stays_open_until_every_planned_fold_has_its_runs(make_heldout, make_answers):
    """Learned upsampling is better in each of two folds, which is enough if no third one is planned."""
    base = np.linspace(0.4, 0.6, IMAGES)
    runs = []
    for label, settings, scores in (
        ("Conv2DTranspose", {"upsampling": "Conv2DTranspose"}, base + 0.1),
        ("Nearest, first step", {}, base),
    ):
        runs += [make_heldout(label, scores, fold=fold, settings=settings) for fold in (0, 1)]
    for folds, verdict, progress in ((2, UPHELD, "1 seed a fold"), (3, UNDECIDED, ", 2 of 3 runs a variant")):
        planned = {}
        for label, position in (("Conv2DTranspose", 0), ("Nearest, first step", 2)):
            config = runs[position].configs[0]
            later = [config.model_copy(update={"fold": fold, "seed": fold}) for fold in range(folds)]
            planned[label] = later
        judged = claims.judge([make_answers(*runs, planned=planned, family="upsampling")])
        assert judged.row["verdict"] == verdict
        assert judged.first.size.endswith(progress)


def test_a_verdict_on_part_of_the_runs_is_provisional(make_heldout, make_answers):
    run = make_heldout("KLD", [0.5] * 4, settings=KLD)
    others = {label: [] for label in ("DICE of both channels", "DICE of the lesion", "BCE")}
    for folds, provisional in ((5, True), (1, False)):
        planned = [run.configs[0].model_copy(update={"fold": fold}) for fold in range(folds)]
        judged = claims.judge([make_answers(run, planned={"KLD": planned} | others)])
        assert ("Provisional: 1 of 5 planned runs have been trained." in judged.first.evidence) == provisional
        assert ("Provisional" in judged.first.evidence) == provisional


# Recorded for the summary


@pytest.fixture
def parameters(tmp_path, monkeypatch):
    """A study whose report is written into a temporary folder."""
    parameters = config.read_profile("smoke")
    monkeypatch.chdir(make_study(tmp_path / "study"))
    return parameters


def test_the_five_recorded_claims_make_a_table(parameters, verdict_of):
    for number in (5, 3, 1, 2):
        claims.record_verdict(parameters, verdict_of(number, UNDECIDED))
    with pytest.raises(NotMeasured, match="claim 4: not judged yet"):
        claims.read_verdicts(parameters)
    claims.record_verdict(parameters, verdict_of(4, UNDECIDED))
    table = claims.read_verdicts(parameters)
    assert table.verdict.tolist() == [UNDECIDED] * 5
    # Claim 3 falls by proof, whatever is measured.
    assert [basis.partition(",")[0] for basis in table.basis] == ["scores", "scores", "proof", "scores", "scores"]
    assert [text.partition(".")[0] for text in table.claim] == ["1", "2", "3", "4", "5"]
    assert table.claim[2] == "3. Claim in words."
    assert table.second_verdict.tolist() == [""] * 5
    table.loc[0, ["second_verdict", "second_size", "second_reason"]] = [UPHELD, "128 pixels", "other reason"]
    lines = claims.list_verdicts(table).splitlines()
    assert lines[0].endswith("(claim 1, undecided)")
    assert lines[1:3] == ["  - At 64 pixels: reason.", "  - At 128 pixels, upheld: other reason."]
    assert claims.read_claims()[3]["says"][UNDECIDED] in lines[5] and lines[5].endswith("(claim 3, undecided)")
    assert lines[6] == "  - At 64 pixels: reason."


def test_a_verdict_replaces_an_earlier_one_on_the_same_claim(parameters, verdict_of):
    claims.record_verdict(parameters, verdict_of(3, UNDECIDED))
    claims.record_verdict(parameters, verdict_of(3, UPHELD))
    recorded = read_findings(parameters)["claims"]
    assert list(recorded) == ["3"]
    assert recorded["3"]["verdict"] == UPHELD


@pytest.fixture
def verdict_of():
    def make(number, verdict):
        judged = claims.Judgement("64 pixels", verdict, "reason", "evidence")
        return claims.Verdict(number, "Claim in words.", judged)

    return make


def test_what_two_equal_functions_differ_by_is_told_only_with_enough_runs(make_heldout, make_answers):
    """One pair of runs has an interval over images alone: that it leaves out 0 says nothing about chance."""
    for folds, told in ((1, "Too few runs for a verdict (1, in 1 of 1 fold)."), (2, "The interval should contain 0")):
        parts = []
        for fold in range(folds):
            parts.append(make_heldout("KLD", [0.5] * 4, fold=fold, settings=KLD))
            parts.append(make_heldout("BCE", [0.4] * 4, fold=fold))
        evidence = claims.judge([make_answers(*parts)]).first.evidence
        assert f"KLD minus BCE: +0.100 Dice (+0.100 to +0.100). {told}" in evidence


# Figures


@pytest.mark.parametrize(
    ("scores", "title"),
    [
        ([0.9, 0.9, 0.9, 0.9], "Learned upsampling is better"),
        ([0.5, 0.5, 0.5, 0.5], "Learned upsampling does not beat every nearest variant"),
        ([0.5, 0.9, 0.4, 0.3], "Whether learned upsampling is better stays open"),
    ],
)
def test_the_title_over_a_figure_follows_the_numbers(make_heldout, make_answers, scores, title):
    others = ("Nearest, first step", "Nearest, all steps")
    runs = train_twice(make_heldout, "Conv2DTranspose", scores, {"upsampling": "Conv2DTranspose"})
    for label in others:
        runs += train_twice(make_heldout, label, [0.6, 0.5, 0.55, 0.6], STEPS[label])
    sizes = [make_answers(*runs, family="upsampling")]
    verdict = claims.judge(sizes)
    table = claims.list_differences(sizes)
    drawn = figures.differences(table, margin=claims.MARGIN, title=verdict.title)
    assert drawn.get_suptitle().replace("\n", " ") == title
    assert sorted(table.label) == [f"Conv2DTranspose − {label}" for label in sorted(others)]
    mean = pytest.approx(sum(scores) / 4 - 0.5625)
    assert table.difference.tolist() == [mean, mean]


def test_a_difference_in_a_figure_says_what_it_leaves_out_and_lacks(make_heldout, make_answers):
    parts = []
    for fold, dice in ((0, 0.4), (1, 0.0)):
        parts.append(make_heldout("KLD", [0.5] * 4, fold=fold, settings=KLD))
        parts.append(make_heldout("DICE of the lesion", [0.4] * 4, fold=fold, settings={"loss": "lesion-dice"}))
        settings = {"loss": "dice"}
        marked = 0.1 if dice else 0.0
        parts.append(make_heldout("DICE of both channels", [dice] * 4, fold=fold, marked=marked, settings=settings))
    table = claims.list_differences([make_answers(*parts)])
    assert set(table.label) == {
        "KLD − DICE of the lesion",
        "KLD − DICE of both channels (few live runs)",
    }


STEPS = {"Nearest, first step": {}, "Nearest, all steps": {"upsampling_steps": "all"}}


def test_variants_are_counted_and_drawn_against_the_first(make_heldout, make_answers):
    scores = {"SGD + fixed LR": 0.5, "Adam + fixed LR": 0.7, "SGD + decaying LR": 0.3}
    runs = []
    for rate, (label, score) in enumerate(scores.items(), start=1):
        runs += train_twice(make_heldout, label, [score] * 8, {"learning_rate": rate / 100})
    title, table = claims.compare_with_baseline(make_answers(*runs, family="optimization"))
    assert title == "1 of 2 variants better than SGD + fixed LR, 1 worse"
    assert dict(zip(table.label, table.difference.round(6), strict=True)) == {
        "Adam + fixed LR": 0.2,
        "SGD + decaying LR": -0.2,
    }


def test_losses_are_compared_with_the_first_without_dead_runs(make_heldout, make_answers):
    """With its two dead runs the other loss is 0.25 worse, without them as good."""
    parts = []
    for seed, dead in enumerate((True, True, False, False)):
        parts.append(make_heldout("KLD", [0.5] * 8, settings=KLD | {"seed": 5 * seed}))
        settings = {"loss": "dice", "seed": 5 * seed}
        scores = {"dice": [0.0] * 8, "marked": 0.0} if dead else {"dice": [0.5] * 8}
        parts.append(make_heldout("DICE of both channels", settings=settings, **scores))
    title, table = claims.compare_with_baseline(make_answers(*parts))
    assert title == "None of 1 variant better than KLD, none worse"
    assert table[["label", "difference"]].values.tolist() == [["DICE of both channels (live runs)", 0.0]]


def test_a_variant_is_no_better_before_it_has_a_run_in_every_fold(make_heldout, make_answers):
    runs = []
    for rate, (label, score) in enumerate({"SGD + fixed LR": 0.5, "Adam + fixed LR": 0.7}.items(), start=1):
        runs += train_twice(make_heldout, label, [score] * 8, {"learning_rate": rate / 100})
    folds = [RunConfig(protocol="heldout", image_size=64, fold=fold, seed=fold) for fold in range(5)]
    answers = make_answers(*runs, family="optimization", planned={"SGD + fixed LR": folds, "Adam + fixed LR": folds})
    title, table = claims.compare_with_baseline(answers)
    assert title == "None of 1 variant better than SGD + fixed LR, none worse, 1 with too few runs"
    assert table.n_folds.tolist() == [1] and table.difference.tolist() == pytest.approx([0.2])


# The file


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_each_claim_is_about_variants_and_rows_that_there_are(number):
    claim = claims.read_claims()[number]
    variants = variants_of(claim["family"])
    assert {claim.get("variant"), *claim.get("than", [])} - {None} <= set(variants)
    assert table_number(claim["family"]) == number


def test_seeds_a_fold_are_counted_within_a_variant(make_answers):
    """A variant that repeats another one has seeds of its own, which are no further seeds."""
    planned = {}
    for variant, offset in (("BCE", 0), ("KLD", 1000)):
        runs = [
            RunConfig(protocol="heldout", image_size=64, fold=f, seed=offset + s) for f in (0, 1) for s in (f, f + 5)
        ]
        planned[variant] = runs
    size = claims.describe_size(make_answers(planned=planned))
    assert size.endswith(", 2 seeds a fold")


def test_a_size_counts_the_runs_of_the_variants_that_are_compared(make_heldout, make_answers):
    kld, bce = make_heldout("KLD", [0.5, 0.9]), make_heldout("BCE", [0.4, 0.5])
    configs = [RunConfig(protocol="heldout", image_size=64, fold=fold, seed=fold) for fold in (0, 1)]
    answers = make_answers(kld, bce, planned={"KLD": configs, "BCE": configs, "DICE": configs})
    assert claims.describe_size(answers).endswith(", 0 to 1 of 2 runs a variant")
    assert claims.describe_size(answers, ["BCE", "KLD"]).endswith(", 1 of 2 runs a variant")
    assert claims.describe_size(answers, ["nothing here"]) == claims.describe_size(answers)
