"""Forecast of the disk space that the encrypted images of a run take in its vaults.

Counted, not measured: bytes of views and label maps. Checkpoints and the images themselves are not
among them; arms whose images are protected alike share what is encrypted.
"""

import math

from clients.policy.fresh_views import ROUNDS_ON_DISK
from clients.vault.assignment import stored_as
from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import Config
from fl_ppseg.experiment.memory_forecast import gigabytes
from fl_ppseg.experiment.time_forecast import HELD_OUT, Images

CHANNELS = 3 + 1
"""Bytes of a pixel: its colours and its label."""


def disk_bytes(config: Config, images: Images) -> int:
    """Bytes of the encrypted images of a run, at most.

    Args:
        config: The experiment.
        images: Of `fl_ppseg.experiment.time_forecast.images_of`.
    """
    data, arms = config.data, arms_of(config).values()
    kinds = {
        (own.key_mode, own.cipher, own.block_scope, own.key_lifetime, own.labels)
        for own in map(stored_as, arms)
    }
    heldout = max(1, round(HELD_OUT * images.num_train / config.clients)) * config.clients
    num_train, num_scored = images.num_train - heldout, heldout + images.num_val
    label = math.prod(images.scored)
    image = label if data.fit == "crop" else math.prod(data.image_size)
    ahead = len(kinds) * len(config.seeds) * num_scored * (3 * image + label)
    view = CHANNELS * math.prod(data.view_size)
    if not data.fresh_views:
        return ahead + len(kinds) * len(config.seeds) * num_train * data.num_views * view
    asked = config.federation.num_asked(config.clients) / config.clients
    share = 1.0 if any(arm.training == "centralised" for arm in arms) else asked
    views = ROUNDS_ON_DISK * config.training.local_epochs * share
    return ahead + math.ceil(num_train * views) * view


def disk_line(config: Config, images: Images) -> str:
    """The disk space of encrypted images, in a line."""
    of_what = f"{config.data.num_views} views of each training image, all through the run"
    if config.data.fresh_views:
        of_what = "fresh views of two rounds at a time"
    return f"disk: about {gigabytes(disk_bytes(config, images))} for encrypted images ({of_what})"
