"""Compares reconstructions with the truth, and collects the findings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from fl_ppseg.audit.attacks.undoing import KeyGuess
from fl_ppseg.audit.ends import Ends
from fl_ppseg.audit.material import Holdings, Scenes
from fl_ppseg.audit.running import Attacked
from fl_ppseg.audit.segmenter import Segmenter
from fl_ppseg.crypto.adaptation import SignedPermutation
from fl_ppseg.leaks.scores import Images, Scores, score_images
from fl_ppseg.leaks.table import SURVIVORS, ArmLeaks, DirectSegmentation, Finding, LabelFinding

NOT_FOUND = "returned no reconstruction"
"""Note on an attack that returned no image."""


@dataclass(frozen=True, eq=False)
class Judge:
    """Scores reconstructions against the truth."""

    scenes: Scenes
    block_size: int
    segmenter: Segmenter | None
    """For the task score; None: the segmenter has other classes."""
    ends: Ends
    """What needs no image of the targets, and what their label maps alone tell."""

    def score(self, truth: Images, guess: Images) -> Scores:
        """Scores of reconstructions, image by image."""
        return score_images(truth, guess, self.block_size, self.miou(guess))

    def likest(self, truth: Images, guesses: Images) -> Images:
        """(n, 3, H, W) and (k, 3, H, W) -> (n, 3, H, W), for each image the best guess by SSIM."""
        return np.stack([max(guesses, key=partial(self._likeness, one)) for one in truth])

    def _likeness(self, image: Images, guess: Images) -> float:
        """SSIM of two images, (3, H, W) each."""
        return score_images(image[None], guess[None], self.block_size).ssim

    def miou(self, guess: Images) -> float | None:
        """mIoU of a segmenter on reconstructions of the first or all targets."""
        if self.segmenter is None:
            return None
        return self.segmenter.miou(guess, self.scenes.labels[: len(guess)])

    def excess(self, scores: Scores, num_images: int) -> float:
        """SSIM of a reconstruction of the first targets above that of the answer alone.

        Args:
            scores: Of the reconstruction.
            num_images: How many targets it is of; the answer is scored on the same.
        """
        truth, answer = (a[:num_images] for a in (self.scenes.targets, self.ends.answer))
        return scores.ssim - score_images(truth, answer, self.block_size).ssim

    def leaks(
        self,
        arm: Holdings,
        attacked: Sequence[Attacked],
        note: str,
        ratio_to_plain: float | None,
        shows_pictures: bool,
        labels: Sequence[LabelFinding],
        direct: DirectSegmentation,
    ) -> ArmLeaks:
        """All findings on one arm.

        Args:
            arm: What adversaries hold of it.
            attacked: All attacks of the audit.
            note: Description of the arm.
            ratio_to_plain: Its mIoU over plain's.
            shows_pictures: Whether pictures may be kept.
            labels: Findings on label maps.
            direct: What the arm's own weights segment.
        """
        findings = [self._finding(arm, each) for each in attacked if arm.arm in each.attempt.arms]
        survivors = next((found.scores for found in findings if found.attack == SURVIVORS), None)
        if not shows_pictures:
            findings = [replace(found, picture=None) for found in findings]
        return ArmLeaks(
            arm=arm.arm,
            note=note,
            protection=described(arm),
            ciphertext=self.score(self.scenes.targets, arm.ciphertexts),
            survivors=survivors,
            findings=tuple(findings),
            ratio_to_plain=ratio_to_plain,
            labels=tuple(labels),
            direct=direct,
            encrypted=arm.ciphertexts[0] if shows_pictures else None,
        )

    def _finding(self, arm: Holdings, attacked: Attacked) -> Finding:
        attempt, images, note = attacked.attempt, attacked.images, attacked.attempt.note
        if images is None:
            note += f": {NOT_FOUND}"
        elif not attempt.is_in_order:
            note += f"; the best by SSIM of {len(images)} guesses" if len(images) > 1 else ""
            images = self.likest(attempt.truth, images)
        scores = None if images is None else self.score(attempt.truth, images)
        return Finding(
            attack=attempt.attack,
            adversary=attempt.adversary,
            scores=scores,
            excess=None if scores is None else self.excess(scores, len(attempt.truth)),
            note=note,
            seconds=round(attacked.seconds, 2),
            budget=attempt.budget,
            # the client whose messages were attacked is another owner, with another key
            key_recovered=None
            if attempt.adversary in ("coordinator", "active-coordinator")
            else _share(attacked.guess, arm.key),
            picture=None if images is None else images[0],
        )


def described(arm: Holdings) -> str:
    """Describe how an arm protects images."""
    settings = arm.protection
    if settings.cipher is None:
        return f"plain images; embedding {settings.embedding}"
    words = f"{settings.key_mode} keys, {settings.cipher}, {settings.block_scope}"
    if settings.encrypted == "queries":
        words = f"plain training images; queries under {words}"
    return f"{words}; embedding {settings.embedding}"


def _share(guess: object, key: SignedPermutation | None) -> float | None:
    """Share of the positions of a block whose source and sign were found."""
    if not isinstance(guess, KeyGuess) or key is None:
        return None
    right = (guess.undoing.index[0] == key.index) & (guess.undoing.sign[0] == key.sign)
    return float(np.mean(right))
