"""Verdicts follow the numbers: the rule at its edges, each claim under numbers for it, against it and neither."""

import numpy as np
import pytest

from busi import config
from busi.report import claims, tables
from busi.report.claims import NOT_UPHELD, UNDECIDED, UPHELD, Comparison
from busi.report.heldout import BLOB, CONSTANT, Answers

IMAGES = 40
CHANCE = np.random.default_rng(0).normal(0, 0.2, IMAGES)
CHANCE -= CHANCE.mean()
"""Differences that average to nothing: with 40 images their interval reaches beyond the margin on both sides."""


def found(low, high, p=0.001):
    return Comparison("A", "B", (low + high) / 2, low, high, p, 100)


def of(family, runs, trivial=None, planned=0):
    return {family: Answers(family, runs, trivial or {}, frozenset(range(planned)))}


@pytest.fixture
def verdict(make_heldout):
    """The verdict on a claim when its family's variants have these Dice scores; a variant without any has no run."""

    def judge(number, **dice):
        family = claims.stated()[number]["family"]
        variants = config.family(family, "smoke").heldout_variants
        names = {label: dice.get(_key(label), dice.get("others")) for label in variants}
        runs = {
            label: [] if scores is None else [make_heldout(np.clip(scores, 0, 1), seed=place)]
            for place, (label, scores) in enumerate(names.items())
        }
        return claims.judge(number, of(family, runs))

    return judge


def _key(label):
    """A variant's label as a Python name."""
    return "".join(letter if letter.isalnum() else "_" for letter in label)


# The rule


@pytest.mark.parametrize(
    ("comparison", "answer"),
    [
        (found(0.001, 0.1), True),
        (found(0.001, 0.01), True),  # better by little is better
        (found(0.001, 0.1, p=0.05), None),  # the test has to agree
        (found(0.0, 0.1), None),
        (found(-0.01, 0.02), None),
        (found(-0.01, 0.0199), False),  # no advantage worth the name
        (found(-0.01, 0.0199, p=1.0), False),
        (found(-0.3, -0.1), False),
        (found(-0.3, 0.3, p=1.0), None),
        (found(np.nan, np.nan, p=1.0), None),
        (None, None),
    ],
)
def test_a_beats_b(comparison, answer):
    assert claims.beats(comparison) is answer


@pytest.mark.parametrize(
    ("comparison", "answer"),
    [
        (found(-0.0199, 0.0199, p=1.0), True),
        (found(0.001, 0.0199), True),  # significant, and still alike
        (found(-0.02, 0.01, p=1.0), None),
        (found(0.01, 0.2), None),  # differs, but perhaps by less than the margin
        (found(0.0201, 0.2), False),
        (found(-0.2, -0.0201), False),
        (found(0.0201, 0.2, p=0.06), None),
        (found(-0.3, 0.3, p=1.0), None),
        (None, None),
    ],
)
def test_a_and_b_are_alike(comparison, answer):
    assert claims.alike(comparison) is answer


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
def test_statements_are_joined(answers, verdict):
    assert claims.joined(answers) == verdict


def test_a_pair_is_found_whichever_way_round_it_stands(make_heldout):
    runs = {"A": [make_heldout([0.5, 0.9, 0.7])], "B": [make_heldout([0.4, 0.5, 0.6], loss="kld")]}
    pairs = of("loss", runs)["loss"].pairs
    forth, back = claims.compared(pairs, "A", "B"), claims.compared(pairs, "B", "A")
    assert forth.difference == pytest.approx(0.2)
    assert (back.a, back.b, back.difference) == ("B", "A", -forth.difference)
    assert (back.low, back.high) == (-forth.high, -forth.low)
    assert claims.compared(pairs, "A", "C") is None


# Claims 1 and 3: the one is better than the others


@pytest.mark.parametrize(
    ("number", "best", "other"), [(1, "Conv2DTranspose", "Nearest__first_step"), (3, "KLD", "DICE_of_the_lesion")]
)
def test_the_best_is_upheld_refuted_or_left_open_by_its_scores(verdict, number, best, other):
    base = np.linspace(0.4, 0.6, IMAGES)
    better = verdict(number, others=base, **{best: base + 0.1})
    assert better.verdict == UPHELD
    assert "+0.100 Dice" in better.evidence
    assert ": better." in better.evidence
    assert f"{best} has Dice 0.600" in better.ours

    same = verdict(number, others=base, **{best: base + 0.001 * np.sign(CHANCE)})
    assert same.verdict == NOT_UPHELD
    assert "not better by 0.02 or more" in same.evidence

    worse = verdict(number, others=base, **{best: base - 0.1})
    assert worse.verdict == NOT_UPHELD
    assert ": worse." in worse.evidence

    unclear = verdict(number, others=base, **{best: base + CHANCE})
    assert unclear.verdict == UNDECIDED
    assert ": not told apart." in unclear.evidence

    partly = verdict(number, others=base, **{best: base + 0.1, other: base + 0.3})
    assert partly.verdict == NOT_UPHELD

    waiting = verdict(number, others=base, **{best: base + 0.1, other: None})
    assert waiting.verdict == UNDECIDED
    assert "1 comparison waits for runs." in waiting.evidence


def test_a_claim_without_a_run_is_undecided_and_says_so(verdict):
    for number in (1, 2, 3, 4):
        empty = verdict(number)
        assert empty.verdict == UNDECIDED
        assert empty.ours == "nothing has been scored yet"
        assert empty.evidence.startswith("There is nothing to compare yet.")


# Claim 2: all alike


def test_optimizers_are_alike_differ_or_are_left_open(verdict):
    base = np.linspace(0.4, 0.6, IMAGES)
    alike = verdict(2, others=base, Adam__LR_0_001=base + 0.005)
    assert alike.verdict == UPHELD
    assert alike.evidence.startswith("Of 21 pairs 21 are alike within ±0.02 and 0 differ by more.")

    apart = verdict(2, others=base, Adam___fixed_LR=base - 0.3)
    assert apart.verdict == NOT_UPHELD
    assert apart.evidence.startswith("Of 21 pairs 15 are alike within ±0.02 and 6 differ by more.")
    assert "The widest: SGD + fixed LR − Adam + fixed LR: +0.300 Dice" in apart.evidence

    unclear = verdict(2, others=base, Adam___fixed_LR=base + CHANCE)
    assert unclear.verdict == UNDECIDED


# Claim 4: no better


def test_that_preprocessing_does_not_help_falls_with_it_helping(verdict):
    base = np.linspace(0.4, 0.6, IMAGES)
    assert verdict(4, others=base, Resize_Norm_Std_Aug_=base + 0.1).verdict == NOT_UPHELD
    assert verdict(4, others=base, Resize_Norm_Std_Aug_=base - 0.1).verdict == UPHELD
    assert verdict(4, others=base, Resize_Norm_Std_Aug_=base + CHANCE).verdict == UNDECIDED
    # The fault alone, a mask left where it was, is not what the claim is about.
    fault = verdict(4, others=base, Resize_Norm_Std_Aug__of_the_image_alone=base + 0.3)
    assert fault.verdict == UPHELD


# Claim 5: accuracy tells


def telling(make_heldout, make_scored, blob=(0.4, 0.8), network=(0.7, 0.95)):
    """The verdict where the constant has accuracy 0.9, and blob and network these Dice and accuracy scores."""
    trivial = {}
    if blob:
        trivial = {
            CONSTANT: make_scored(np.zeros(IMAGES), accuracy=0.9),
            BLOB: make_scored(np.full(IMAGES, blob[0]), accuracy=blob[1]),
        }
    runs = [make_heldout(np.full(IMAGES, network[0]), accuracy=network[1])] if network else []
    return claims.judge(5, of("upsampling", {"Nearest, first step": runs}, trivial))


def test_accuracy_that_ranks_a_finder_no_higher_than_the_constant_does_not_tell(make_heldout, make_scored):
    judged = telling(make_heldout, make_scored)
    assert judged.verdict == NOT_UPHELD
    assert f"{BLOB} − {CONSTANT}: -0.100 accuracy" in judged.evidence
    assert f"{CONSTANT} has Dice 0.000 and accuracy 0.900" in judged.ours
    assert "Baseline network has Dice 0.700 and accuracy 0.950" in judged.ours


def test_accuracy_that_ranks_every_finder_higher_tells(make_heldout, make_scored):
    assert telling(make_heldout, make_scored, blob=(0.4, 0.92)).verdict == UPHELD


def test_who_finds_nothing_is_not_asked(make_heldout, make_scored):
    judged = telling(make_heldout, make_scored, blob=(0.01, 0.8))
    assert judged.verdict == UPHELD
    assert f"{BLOB} − " not in judged.evidence


def test_accuracy_is_left_undecided_without_a_network_or_without_a_constant(make_heldout, make_scored):
    assert telling(make_heldout, make_scored, blob=(0.4, 0.92), network=None).verdict == UNDECIDED
    assert telling(make_heldout, make_scored, blob=None, network=None).verdict == UNDECIDED


def test_the_published_extremes_stand_beside_claim_5(make_heldout, make_scored):
    assert telling(make_heldout, make_scored).published == (
        "accuracy 0.9082 to 0.9429, AUC 0.9052 to 0.9850, loss 0.0916 to 0.3070 in 9 rows"
    )


# Words


def test_prose_and_table_follow_the_numbers(verdict):
    base = np.linspace(0.4, 0.6, IMAGES)
    upheld, refuted = verdict(3, others=base, KLD=base + 0.1).prose, verdict(3, others=base, KLD=base - 0.1).prose
    assert upheld.startswith("Claim 3 (section D.3): *Kullback-Leibler divergence is the best of the three losses.*")
    assert "**Upheld.**" in upheld
    assert "**Not upheld.**" in refuted
    assert "KLD has Dice 0.600" in upheld
    assert "KLD has Dice 0.400" in refuted
    assert "KLD has accuracy 0.9429 and AUC 0.9850" in upheld


def test_a_verdict_on_part_of_the_runs_is_provisional(make_heldout):
    runs = {"KLD": [make_heldout([0.5] * 4, loss="kld")], "DICE": [], "BCE": []}
    assert "Provisional: 1 of 20 planned runs are there." in claims.judge(3, of("loss", runs, planned=20)).evidence
    assert "Provisional" not in claims.judge(3, of("loss", runs, planned=1)).evidence


def test_runs_that_find_nothing_are_part_of_the_evidence(make_heldout):
    runs = {
        "KLD": [make_heldout([0.5] * 4, loss="kld"), make_heldout([0.5] * 4, loss="kld", fold=1)],
        # One of two finds nothing; marks on normal images alone find nothing either.
        "DICE of both channels": [make_heldout([0.4] * 4), make_heldout([0] * 4, fold=1, marked=0.0, normals=[0.2])],
        "BCE": [make_heldout([0] * 4, marked=[0, 0, 0, 0.001])],
    }
    evidence = claims.judge(3, of("loss", runs)).evidence
    assert "Runs that mark no pixel of their held-out lesion images: DICE of both channels 1 of 2." in evidence
    assert "mark no pixel" not in claims.judge(3, of("loss", {"KLD": runs["KLD"]})).evidence


def test_the_five_claims_make_a_table(make_heldout):
    families = {}
    for name in config.FAMILIES:
        families |= of(name, {label: [] for label in config.family(name, "smoke").heldout_variants})
    table = claims.table(families)
    assert list(table.columns) == ["claim", "published", "ours", "verdict", "evidence"]
    assert [text.partition(".")[0] for text in table.claim] == ["1", "2", "3", "4", "5"]
    assert (table.verdict == UNDECIDED).all()
    assert claims.summed_up(table) == "Of the paper's 5 claims, 5 are undecided at this size (1, 2, 3, 4, 5)."
    table.verdict = [UPHELD, NOT_UPHELD, UNDECIDED, NOT_UPHELD, NOT_UPHELD]
    assert claims.summed_up(table) == (
        "Of the paper's 5 claims, 1 is upheld (1); 3 are not upheld (2, 4, 5); 1 is undecided at this size (3)."
    )


# The file


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_each_claim_is_about_variants_and_rows_that_there_are(number):
    claim = claims.stated()[number]
    variants = config.family(claim["family"], "smoke").heldout_variants
    assert {claim.get("variant"), *claim.get("than", [])} - {None} <= set(variants)
    methods = tables.published()["tables"][number]["rows"]
    assert claims.number_of(claim["family"]) == number
    assert [claims.same(claim["family"]).get(method, method) in variants for method in methods] == [True] * len(methods)


def test_five_claims_are_stated():
    assert list(claims.stated()) == [1, 2, 3, 4, 5]
