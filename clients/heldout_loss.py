"""The loss of received weights on the node's held-out images: far above what it was is refused.

    <state>/losses/<digest>.json    the least loss of weights that were accepted, for one run, arm
                                    and seed

Only where the owner sets `max_loss_ratio` in its policy. The loss is compared with the least that
was accepted, or with that of the owner's own start weights where none was, so it cannot be raised
step by step. Weights that were granted before are not looked at again. A refusal tells the
coordinator that a loss lies above a limit, which is one more answer about held-out images.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from fl_ppseg.config.documents import parse_json, read_bytes
from fl_ppseg.config.loading import validate
from fl_ppseg.config.section import Section
from fl_ppseg.system.files import make_private_folder, write_atomically

LOSSES: Final = "losses"
MAX_BYTES: Final = 1_000
_DIGITS: Final = 32


class LeastLoss(Section):
    """The least loss of weights that were accepted."""

    loss: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Mean over the labelled pixels of the held-out images."""


def loss_file(state: Path, run: str | None, arm: str, seed: int) -> Path:
    """The file of a run (its id, or the hash of an agreement), arm and seed; need not exist."""
    digest = hashlib.sha256(json.dumps([run, arm, seed]).encode()).hexdigest()[:_DIGITS]
    return state / LOSSES / f"{digest}.json"


def least_loss(file: Path) -> float | None:
    """The least loss that was accepted; None if none was.

    Raises:
        InputError: The file is damaged.
    """
    if not file.exists():
        return None
    content = read_bytes(file, MAX_BYTES, follow_link=False)
    return validate(LeastLoss, parse_json(content, str(file), MAX_BYTES), str(file)).loss


def keep_loss(file: Path, loss: float) -> None:
    """Record the loss of weights that were accepted, if it is the least."""
    before = least_loss(file)
    if before is None or loss < before:
        make_private_folder(file.parent)
        write_atomically(file, LeastLoss(loss=loss).model_dump_json(), mode=0o600)


def remove_losses(state: Path) -> None:
    """Remove all, as the app's part of a withdrawal."""
    if (state / LOSSES).is_dir():
        shutil.rmtree(state / LOSSES)
