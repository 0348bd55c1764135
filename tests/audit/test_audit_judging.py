"""Guesses beside the truth, in order or in none; jobs that answer several attempts at once."""

import sys
from functools import partial

import attack_cases
import numpy as np
import pytest
import small_federation as small

from fl_ppseg.audit.attacks.chains import of_survivors
from fl_ppseg.audit.attacks.reader import Budget
from fl_ppseg.audit.attacks.survivor_network import survivor_network
from fl_ppseg.audit.ends import Ends
from fl_ppseg.audit.jobs import Attempt, Guess, Job
from fl_ppseg.audit.judging import Judge
from fl_ppseg.audit.material import Scenes
from fl_ppseg.audit.running import attack
from fl_ppseg.leaks.scores import Scores, score_images
from fl_ppseg.progress.steps import steps
from fl_ppseg.system import workers

IMAGES = attack_cases.scenes(4, (16, 32))
LABELS = np.zeros((4, 16, 32), np.uint8)


@pytest.fixture
def judge() -> Judge:
    scenes = Scenes("aachen", IMAGES[:3], LABELS[:3], (), IMAGES[:0], IMAGES[3:], LABELS[3:])
    ends = Ends(nothing=IMAGES[[3, 3, 3]], answer=IMAGES[[1, 2, 0]])
    return Judge(scenes, block_size=8, segmenter=None, ends=ends)


def test_excess_is_above_the_answer_alone_on_the_same_images(judge: Judge) -> None:
    guess = Scores(0.9, 20.0, 0.5)
    for num in (1, 3):
        answer = score_images(IMAGES[:num], IMAGES[[1, 2, 0]][:num], 8).ssim
        assert judge.excess(guess, num) == pytest.approx(0.9 - answer)
    assert judge.excess(guess, 1) != pytest.approx(judge.excess(guess, 3), abs=1e-4)


def test_guesses_in_order_are_compared_pair_by_pair(judge: Judge) -> None:
    assert judge.score(IMAGES[:3], IMAGES[:3]).ssim == 1
    turned = IMAGES[[1, 2, 0]]
    assert judge.score(IMAGES[:3], turned) == score_images(IMAGES[:3], turned, 8)
    assert judge.score(IMAGES[:3], turned).ssim < 0.9


def test_guesses_in_no_order_count_at_the_images_that_they_are_likest(judge: Judge) -> None:
    np.testing.assert_array_equal(judge.likest(IMAGES[:3], IMAGES[[2, 0, 1, 3]]), IMAGES[:3])
    np.testing.assert_array_equal(judge.likest(IMAGES[:3], IMAGES[:1]), IMAGES[[0, 0, 0]])


def attempt(name: str) -> Attempt:
    return Attempt(name, "coordinator", ("arm",), IMAGES[:1], "a note")


def both() -> tuple[Guess, ...]:
    return IMAGES[:1], None


def one(number: int) -> Guess:
    return IMAGES[number : number + 1]


def test_every_attempt_gets_its_own_guess_in_the_order_of_the_jobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "ProcessPoolExecutor", small.InlinePool)
    jobs = [
        Job((attempt("shown"), attempt("hidden")), both, seconds=50),
        Job.of(attempt("short"), partial(one, 1)),
        Job.of(attempt("longest"), partial(one, 2), seconds=99),
    ]
    with steps(sys.stderr, quiet=True) as progress:
        found = attack(jobs, 2, progress)
    assert [each.attempt.attack for each in found] == ["shown", "hidden", "short", "longest"]
    for each, wanted in zip(found, (0, None, 1, 2), strict=True):
        if wanted is None:
            assert each.images is None
        else:
            np.testing.assert_array_equal(each.images, IMAGES[wanted : wanted + 1])


def test_one_network_reads_what_was_stolen_and_what_messages_show() -> None:
    public, stolen, shown = IMAGES[:2], IMAGES[2:3], IMAGES[3:]
    budget = Budget(steps=2)
    shows = [lambda: stolen, lambda: None, lambda: shown]
    found = of_survivors(public, shows, "values", block_size=8, budget=budget)
    alone = [
        survivor_network(public, images, "values", block_size=8, budget=budget)
        for images in (stolen, shown)
    ]
    assert found[1] is None
    np.testing.assert_array_equal(found[0], alone[0])
    np.testing.assert_array_equal(found[2], alone[1])
