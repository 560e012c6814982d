"""Verdicts follow the numbers: the rule at its edges, each claim with numbers for it, against it and neither."""

import numpy as np
import pytest

from busi import config
from busi.published import published_tables, table_number
from busi.report import claims
from busi.report.claims import NOT_UPHELD, UNDECIDED, UPHELD, Comparison
from busi.results import NotMeasured, read_findings
from busi.scoring.predictors import BLOB, CONSTANT

IMAGES = 40
CHANCE = np.random.default_rng(0).normal(0, 0.2, IMAGES)
CHANCE -= CHANCE.mean()
"""Differences that average to nothing: with 40 images their interval reaches beyond the margin on both sides."""

KLD = {"loss": "kld"}


def comparison(low, high, p=0.001):
    return Comparison("A", "B", (low + high) / 2, low, high, p, 100)


def variants_of(family):
    return config.read_family(family, config.read_profile("smoke")).heldout_variants


@pytest.fixture
def verdict(make_heldout, make_answers):
    """Judges a claim whose family's variants have these Dice scores; a variant without any has no run."""

    def judge(number, **dice):
        family = claims.read_claims()[number]["family"]
        runs = []
        for place, label in enumerate(variants_of(family)):
            scores = dice.get(_key(label), dice.get("others"))
            if scores is not None:
                runs.append(make_heldout(label, np.clip(scores, 0, 1), settings={"seed": place}))
        planned = {label: [] for label in variants_of(family)}
        return claims.judge(make_answers(*runs, family=family, planned=planned))

    return judge


def _key(label):
    """Return a variant's label as a Python name."""
    return "".join(letter if letter.isalnum() else "_" for letter in label)


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


@pytest.fixture
def telling(make_heldout, make_answers):
    """Judges claim 5 where the constant has accuracy 0.9, and blob and network these Dice and accuracy scores."""

    def judge(blob=(0.4, 0.8), network=(0.7, 0.95)):
        untrained = {
            CONSTANT: (np.zeros(IMAGES), {"accuracy": 0.9}),
            BLOB: (np.full(IMAGES, blob[0]), {"accuracy": blob[1]}),
        }
        runs = []
        if network:
            runs.append(make_heldout("Nearest, first step", np.full(IMAGES, network[0]), accuracy=network[1]))
        return claims.judge_accuracy([make_answers(*runs, family="upsampling", untrained=untrained)])

    return judge


def test_accuracy_that_ranks_a_finder_no_higher_than_the_constant_does_not_tell(telling):
    judged = telling()
    assert judged.verdict == NOT_UPHELD
    assert f"{BLOB} − {CONSTANT}: -0.100 accuracy" in judged.evidence
    assert f"{CONSTANT} has Dice 0.000 and accuracy 0.900" in judged.ours
    assert "Baseline network has Dice 0.700 and accuracy 0.950" in judged.ours


def test_accuracy_that_ranks_every_finder_higher_tells(telling):
    assert telling(blob=(0.4, 0.92)).verdict == UPHELD


def test_a_predictor_that_finds_nothing_is_not_asked_about(telling):
    judged = telling(blob=(0.01, 0.8))
    assert judged.verdict == UPHELD
    assert f"{BLOB} − " not in judged.evidence


def test_accuracy_is_left_undecided_without_a_network(telling):
    judged = telling(blob=(0.4, 0.92), network=None)
    assert judged.verdict == UNDECIDED
    assert "1 comparison waits for runs." in judged.evidence


def test_the_published_extremes_are_told_with_claim_5(telling):
    assert telling().published == ("accuracy 0.9082 to 0.9429, AUC 0.9052 to 0.9850, loss 0.0916 to 0.3070 in 9 rows")


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


def test_a_verdict_on_part_of_the_runs_is_provisional(make_heldout, make_answers):
    run = make_heldout("KLD", [0.5] * 4, settings=KLD)
    others = {label: [] for label in ("DICE of both channels", "DICE of the lesion", "BCE")}
    for folds, provisional in ((5, True), (1, False)):
        planned = [run.configs[0].model_copy(update={"fold": fold}) for fold in range(folds)]
        judged = claims.judge(make_answers(run, planned={"KLD": planned} | others))
        assert ("Provisional: 1 of 5 planned runs are there." in judged.evidence) == provisional
        assert ("Provisional" in judged.evidence) == provisional


def test_runs_that_find_nothing_are_part_of_the_evidence(make_heldout, make_answers):
    kld = make_heldout("KLD", [0.5] * 4, settings=KLD)
    blind = make_heldout("DICE of both channels", [0] * 4, marked=0.0, normals=[0.2])
    planned = {label: [] for label in variants_of("loss")}
    evidence = claims.judge(make_answers(kld, blind, planned=planned)).evidence
    assert "Runs that mark no pixel of their held-out lesion images: DICE of both channels 1 of 1." in evidence
    assert "mark no pixel" not in claims.judge(make_answers(kld, planned=planned)).evidence


# Recorded for the summary


@pytest.fixture
def parameters(tmp_path, monkeypatch):
    """A study whose report is written into a temporary folder."""
    parameters = config.read_profile("smoke")
    for folder in ("params", "notebooks"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    return parameters


def test_the_five_recorded_claims_make_a_table(parameters, verdict_of):
    for number in (5, 3, 1, 2):
        claims.record_verdict(parameters, verdict_of(number, UNDECIDED))
    with pytest.raises(NotMeasured, match="claim 4: not judged yet"):
        claims.read_verdicts(parameters)
    claims.record_verdict(parameters, verdict_of(4, UNDECIDED))
    table = claims.read_verdicts(parameters)
    assert list(table.columns) == ["claim", "published", "ours", "verdict", "evidence"]
    assert [text.partition(".")[0] for text in table.claim] == ["1", "2", "3", "4", "5"]
    assert table.claim[2] == "3. Claim in words."
    assert claims.count_verdicts(table) == "Of the paper's 5 claims, 5 are undecided at this size (1, 2, 3, 4, 5)."
    table.verdict = [UPHELD, NOT_UPHELD, UNDECIDED, NOT_UPHELD, NOT_UPHELD]
    assert claims.count_verdicts(table) == (
        "Of the paper's 5 claims, 1 is upheld (1); 3 are not upheld (2, 4, 5); 1 is undecided at this size (3)."
    )


def test_a_verdict_replaces_an_earlier_one_on_the_same_claim(parameters, verdict_of):
    claims.record_verdict(parameters, verdict_of(3, UNDECIDED))
    claims.record_verdict(parameters, verdict_of(3, UPHELD))
    recorded = read_findings(parameters)["claims"]
    assert list(recorded) == ["3"]
    assert recorded["3"]["verdict"] == UPHELD


@pytest.fixture
def verdict_of():
    def make(number, verdict):
        return claims.Verdict(number, "D", "Claim in words.", "published", "ours", verdict, "evidence")

    return make


# The file


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_each_claim_is_about_variants_and_rows_that_there_are(number):
    claim = claims.read_claims()[number]
    variants = variants_of(claim["family"])
    assert {claim.get("variant"), *claim.get("than", [])} - {None} <= set(variants)
    assert table_number(claim["family"]) == number
    same = claims.same_variants(claim["family"])
    for method in published_tables()[number]["rows"]:
        assert same.get(method, method) in variants


def test_five_claims_are_stated():
    assert list(claims.read_claims()) == [1, 2, 3, 4, 5]
