"""Words are chosen by the scores, and claim neither more nor less than they say."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_leaks import (
    BLIND,
    EXACT,
    arm,
    found,
    invariant,
    labels,
    plain,
    private,
    scores,
    table,
    usual,
)

from fl_ppseg.leaks.cells import Cell
from fl_ppseg.leaks.findings import findings, gets, headline, scale
from fl_ppseg.leaks.scores import BEST_PSNR, Scores
from fl_ppseg.leaks.table import ADVERSARIES
from fl_ppseg.leaks.words import HOLDS, NAMES, OUTLINES, above, one, share, sight, told

RANKS = (
    "a blind guess", "traces", "light and dark", "a thumbnail",
    "large shapes", "a softened scene", "almost all", "the whole image", "the image itself",
)  # fmt: skip


def rank(given_scores):
    return RANKS.index(sight(given_scores, usual()).short)


@pytest.mark.parametrize(
    ("given_scores", "short"),
    [
        (EXACT, "the image itself"),
        (Scores(1.0, BEST_PSNR - 0.1, 1.0), "the whole image"),
        (scores(0.979), "almost all"),
        (scores(0.871), "a softened scene"),
        (scores(0.519, 0.2), "large shapes"),
        (scores(0.334, 0.85), "a thumbnail"),
        (scores(0.334, 0.79), "light and dark"),
        (scores(0.25, 0.35), "traces"),
        (scores(0.18, 0.35), "a blind guess"),
        (BLIND, "a blind guess"),
        (scores(-0.01, -0.4), "a blind guess"),
    ],
)
def test_scores_choose_the_words(given_scores, short):
    assert sight(given_scores, usual()).short == short


def test_a_thumbnail_has_its_size():
    seen = sight(scores(0.334, 0.85), usual())
    assert "2 x 4 patches" in seen.sentence  # 16 x 32 pixels in blocks of 8


def test_what_any_street_has_is_no_thumbnail():
    """Block means that correlate as those of a network that saw nothing tell of no street."""
    streets = usual()
    object.__setattr__(streets, "nothing", Scores(0.3, 12.0, 0.84))
    assert sight(scores(0.29, 0.85), streets).short == "a blind guess"
    assert sight(scores(0.29, 0.97), streets).short == "a thumbnail"


def test_what_shows_more_is_larger():
    seen = [sight(s, usual()) for s in (
        BLIND, scores(0.25, 0.35), scores(0.334, 0.79), scores(0.334, 0.85), scores(0.5),
        scores(0.7), scores(0.9), scores(0.98), EXACT,
    )]  # fmt: skip
    assert [each.short for each in seen] == list(RANKS)
    assert all(a < b for a, b in pairwise(seen))


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(-1, 1), st.floats(0, 1))
def test_nearer_is_never_told_as_less(ssim, more_ssim, correlation, more_correlation):
    better = scores(
        ssim + more_ssim * (1 - ssim), correlation + more_correlation * (1 - correlation)
    )
    assert rank(better) >= rank(scores(ssim, correlation))


@pytest.mark.parametrize(
    ("part", "text"), [(0, "0 %"), (0.9999, "99 %"), (0.29, "29 %"), (1, "100 %")]
)
def test_shares_are_rounded_down(part, text):
    assert share(part) == text


def test_a_private_embedding_is_told_in_plain_words():
    """What a thief of ciphertexts and the thief of a node get of per-client-private."""
    words = {name: told(Cell(private(), name), usual()) for name in ADVERSARIES}
    assert words["ciphertext-thief"] == (
        "The scene with most of its shapes; fine detail is lost. The attacks found 83 % of the key."
    )
    assert words["node-thief"] == (
        f"Everything: the image, to the bit. The attacks found the whole key. {OUTLINES}"
    )
    assert words["coordinator"] == "No more than a guess that has seen other streets only."


def test_a_stronger_adversary_without_a_better_attack_gets_as_much():
    words = told(Cell(invariant(), "known-plaintext"), usual())
    assert words.endswith("As much as a thief of ciphertexts gets.")
    assert words.startswith("Little but a thumbnail")


def test_what_was_not_run_or_gave_no_picture_is_said():
    assert told(Cell(arm("a"), "coordinator"), usual()) == "Not attacked."
    words = told(Cell(invariant(), "coordinator"), usual())
    assert words == "No attack gave a picture. The attacks found 0 % of the key."


def test_every_adversary_has_a_name_and_holdings():
    assert NAMES.keys() == HOLDS.keys() == set(ADVERSARIES)
    assert len(set(NAMES.values())) == len(NAMES)


def test_an_active_coordinator_does_not_borrow_the_best_case_of_one_that_listens():
    seen = arm("a", found("closed-form", "coordinator", scores(0.8), key=0.0))
    assert told(Cell(seen, "coordinator"), usual()).startswith("The scene with most")
    assert told(Cell(seen, "active-coordinator"), usual()) == "Not attacked."


def test_the_best_case_of_a_coordinator_is_told_with_its_figure():
    assert "best case: a client that trains one step on one image." in HOLDS["coordinator"]


def by_thief(name, ssim, correlation=0.9):
    seen = found("inverse-network", "ciphertext-thief", scores(ssim, correlation))
    return arm(name, seen, survivors=0.1)


GIVEN = "gave the image or almost all of it away"
NO_MORE = "No attack on an encrypted arm got more than"


@pytest.mark.parametrize(
    ("arms", "text"),
    [
        ((), "No encrypted arm was attacked"),
        ((plain(),), "No encrypted arm was attacked"),
        ((plain(), private(), invariant()), f"1 of 2 encrypted arms {GIVEN}"),
        ((private(),), f"1 of 1 encrypted arms {GIVEN}"),
        ((private(), by_thief("b", 0.9)), f"2 of 2 encrypted arms {GIVEN}"),
        ((by_thief("b", 0.899),), f"{NO_MORE} a softened scene (SSIM\u00a00.90)"),
        ((plain(), invariant()), f"{NO_MORE} a thumbnail (SSIM\u00a00.33)"),
        (
            (arm("a", survivors=0.5), arm("b", survivors=0.31)),
            f"{NO_MORE} large shapes (SSIM\u00a00.50)",
        ),
    ],
)
def test_headline_tells_how_many_gave_the_image_or_the_most_that_one_gave(arms, text):
    assert headline(table(*arms)) == text


def test_headline_counts_what_any_adversary_got():
    shown = found("imprint", "active-coordinator", scores(0.95))
    assert headline(table(arm("a", shown), invariant())) == f"1 of 2 encrypted arms {GIVEN}"


def test_headline_takes_what_shows_most_though_its_ssim_is_lower():
    """Light and dark of the first score higher than the thumbnail of the second."""
    dim, small = by_thief("dim", 0.4, 0.6), by_thief("small", 0.3, 0.9)
    lit = replace(dim, findings=dim.findings[-1:])
    assert headline(table(lit)) == f"{NO_MORE} light and dark (SSIM\u00a00.40)"
    assert headline(table(lit, small)) == f"{NO_MORE} a thumbnail (SSIM\u00a00.30)"


def test_headline_without_a_picture_claims_none():
    blind = found("imprint", "active-coordinator", None)
    given_arm = replace(arm("a"), findings=(blind,))
    assert headline(table(given_arm)) == "No attack on an encrypted arm returned a picture"
    assert headline(table(replace(given_arm, findings=()))) == "No encrypted arm was attacked"


def test_an_adversary_that_got_no_picture_is_told_so():
    assert "A coordinator gets no picture of an encrypted arm." in findings(table(invariant()))
    assert gets("coordinator", table(plain())) == "", "it attacked no encrypted arm"


def test_of_each_adversary_the_most_is_told_with_its_arm_and_score():
    told_of = findings(usual())
    assert (
        "A thief of ciphertexts gets a softened scene at most (SSIM\u00a00.87, of "
        "per-client-private; excess +0.64)."
    ) in told_of
    assert (
        "A thief of a node gets the image itself at most (SSIM\u00a01.00, of per-client-private; "
        "excess +0.77); the whole key of per-client-private."
    ) in told_of
    assert OUTLINES in told_of
    assert OUTLINES not in findings(table(plain(), invariant())), "no label map lies in place"
    active = (
        "An active coordinator gets almost all at most (SSIM\u00a00.96, of per-client-private; "
        "excess +0.73)."
    )
    assert active in told_of


@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_gets_tells_the_best_attack_on_any_encrypted_arm(adversary):
    given_table = table(plain(), private(), invariant(), arm("other", survivors=0.32))
    best = [a.best(adversary) for a in given_table.arms[1:]]
    most = max(found.scores.ssim for found in best if found is not None)
    assert f"SSIM\u00a0{most:.2f}, of " in gets(adversary, given_table)
    assert gets(adversary, given_table).lower().startswith(one(adversary))


def test_scale_names_its_ends():
    assert "1 for the image itself and 0.166 for a blind guess" in scale(usual())
    assert "48.7 mIoU on the images themselves and 5.2 on the blind guess" in scale(usual())
    assert "The answer alone has 0.231: that of a network" in scale(usual())
    assert "and 37.6 on what the answer alone restores." in scale(usual())
    assert "segmenter" not in scale(usual(plain_miou=None))


@pytest.mark.parametrize(
    ("excess", "text"), [(0.0712, "excess +0.07"), (-0.0712, "excess -0.07"), (None, "")]
)
def test_what_a_finding_has_above_the_answer_alone_has_its_sign(excess, text):
    best = replace(found("inverse-network", "ciphertext-thief", scores(0.3)), excess=excess)
    assert above(best) == text


def test_what_weights_segment_stands_beside_what_a_thief_without_them_has():
    told_of = findings(table(plain(), private(), invariant()))
    assert (
        "Whoever holds a ciphertext and the trained weights segments it without restoring "
        "anything: 39.8 mIoU of per-image-invariant; on the best that a thief of ciphertexts "
        "restores, a segmenter has 21.3."
    ) in told_of
    assert any("and the public weights of round 0 segments" in each for each in told_of)
    assert any(": 33.3 mIoU of per-image-invariant; " in each for each in told_of)
    assert "Whoever holds" not in " ".join(findings(table(plain(), private())))


def test_partial_keys_are_not_whole():
    nearly = arm("a", found("position-correlation", "ciphertext-thief", EXACT, key=0.999))
    assert "99 % of the key" in told(Cell(nearly, "ciphertext-thief"), usual())
    assert not any("whole key" in text for text in findings(table(nearly)))


def test_refusals_in_the_same_words_are_said_once():
    notes = ("lie 2e+04 from the start, but 0.307", "lie 596.5 from the start, but 0.3", "another")
    arms = [
        replace(each, labels=(labels(None, note=f"refused: {note}"),))
        for each, note in zip((plain(), private(), invariant()), notes, strict=True)
    ]
    (said,) = (line for line in findings(table(*arms)) if "answer no such request" in line)
    assert "(refused: lie 2e+04 from the start, but 0.307; refused: another)" in said
