"""Segmenting ciphertexts directly: with the weights of an arm, without restoring anything.

Adversary: holds ciphertexts of the arm and its weights. Those of round 0 are public, so that any
thief of ciphertexts has them; later ones a service has, the thief of a node, and whoever got a
checkpoint. (A coordinator holds them and has no ciphertext but those that messages reveal.) No key,
no label map, no public images.
Method: the weights of round 0, and the newest checkpoint, segment the targets as the arm encrypts
them, by the scores that are in place; of a pixel head those are the decoder's alone.
Where the weights alone read no ciphertext of the audit, the reason stands in place of a figure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from fl_ppseg.audit.material import Holdings, Scenes
from fl_ppseg.audit.segmenter import Segmenter
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.checkpoints import latest, model_of
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.leaks.table import NO_WEIGHTS, DirectSegmentation
from fl_ppseg.setr.model import SETR, Logits

OF_EACH: Final = "each client trains a model of its own, so there are no weights of a federation"
PRIVATE: Final = (
    "the embedding is private: without it the weights of a round read no ciphertext, and whoever "
    "has it has the key"
)
SHARED: Final = (
    "not measured: the weights read ciphertexts under the shared key of the run, and those of the "
    "audit have another; who holds such weights needs no key to segment"
)
UNTRAINED: Final = "the run holds no checkpoint of a round after the start"


class InPlace(nn.Module):
    """(B, 3, H, W) ciphertexts -> `Logits` as somebody without the key reads them: in place.

    Args:
        model: Of the arm. Where it scores the pixels of ciphertexts, whose order only a key undoes,
            the decoder's scores are taken.
    """

    def __init__(self, model: SETR) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Logits:
        """Segment."""
        found: Logits = self.model(images)
        return found if found.decoder is None else Logits(found.decoder, ())


@dataclass(frozen=True, eq=False)
class ArmWeights:
    """The weights of an audit's arms: of round 0, and the newest of a run."""

    run: Path | None
    """Folder of the run with the arms' checkpoints; None: no run is audited."""
    seed: int
    """Whose checkpoints."""
    start: Mapping[str, SETR] = field(repr=False)
    """The model of each arm with the weights of round 0."""
    num_classes: int

    def segmented(self, arm: Holdings, scenes: Scenes) -> DirectSegmentation:
        """The mIoU of an arm's own weights on its ciphertexts, or why there is none.

        Args:
            arm: What the owner made of the targets.
            scenes: The targets and their label maps.

        Raises:
            InputError: A checkpoint is damaged.
        """
        if arm.protection.embedding == "private":
            return DirectSegmentation(None, None, PRIVATE)
        if arm.is_encrypted and arm.protection.key_mode == "shared":
            return DirectSegmentation(None, None, SHARED)
        public = self._miou(self.start[arm.arm], arm, scenes)
        if self.run is None:
            return DirectSegmentation(None, public, NO_WEIGHTS)
        if arm.protection.training == "local-only":
            return DirectSegmentation(None, public, OF_EACH)
        checkpoint = latest(RunFolder(self.run), arm.arm, self.seed)
        if checkpoint is None:
            return DirectSegmentation(None, public, UNTRAINED)
        note = _note(checkpoint, arm, len(scenes.labels))
        return DirectSegmentation(self._miou(model_of(checkpoint), arm, scenes), public, note)

    def _miou(self, model: SETR, arm: Holdings, scenes: Scenes) -> float:
        return Segmenter(InPlace(model), self.num_classes).miou(arm.ciphertexts, scenes.labels)


def _note(checkpoint: Checkpoint, arm: Holdings, num_images: int) -> str:
    what = "ciphertexts" if arm.is_encrypted else "images, which are not encrypted"
    seed = checkpoint.description.seed
    note = f"weights of round {checkpoint.round}, seed {seed}; {num_images} {what}"
    if arm.protection.labels == "encrypted":
        note += "; the decoder's scores alone, for those of the pixels are in no place"
    if arm.is_encrypted and arm.protection.key_mode == "per-client":
        note += "; under a key that the training did not see"
    return note
