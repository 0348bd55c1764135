"""An arm for a training loop of one's own: its model, what its queries are, encrypted batches."""

from collections.abc import Sequence
from typing import Any

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.data import DataConfig
from fl_ppseg.config.loading import builtin_arms, validate
from fl_ppseg.config.sections import Config, ModelConfig
from fl_ppseg.crypto.arm_models import embedding_reads, model_settings
from fl_ppseg.crypto.ciphers import encryption
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Array
from fl_ppseg.data.views import SizePolicy
from fl_ppseg.federation.public_weights import initial_model
from fl_ppseg.inference.query_spec import QuerySpec, spec_of
from fl_ppseg.setr.model import SETR
from fl_ppseg.system.errors import InputError


def create_model(
    arm: str, *, num_classes: int = 19, image_size: tuple[int, int], seed: int = 0, **settings: Any
) -> SETR:
    """The SETR that an arm starts from, in training mode, with the weights that it starts with.

    It maps (B, 3, H, W) float in [-1, 1], as `fl_ppseg.to_input` makes them, to scores at the
    resolution of its head, `.main`: (B, num_classes, h, w).

    Args:
        arm: E.g. `plain`, `per-image-invariant`; see `python -m fl_ppseg.describe arms`.
        num_classes: Channels of the scores.
        image_size: (height, width) of what it reads, in pixels.
        seed: Draws what no weights are loaded for.
        settings: Of section `model`: backbone, decoder, weights, ...; see
            `python -m fl_ppseg.describe config model`.

    Raises:
        InputError: There is no such arm, or the settings do not fit it or each other.
    """
    protection = _arm(arm)
    section = model_settings(validate(ModelConfig, settings, "model"), arm, protection)
    data = validate(DataConfig, {"image_size": image_size}, "create_model")
    config = Config(model=section, data=data)
    return initial_model(config, num_classes, seed, embedding_reads(section, protection))


def query_spec(
    arm: str, *, image_size: tuple[int, int], block_size: int = 8, fit: SizePolicy = "resize"
) -> QuerySpec:
    """What queries to a model of an arm must be.

    Args:
        arm: As for `create_model`.
        image_size: (height, width) of what the model reads, in pixels.
        block_size: Side of the model's patch, `model.patch_size`, in pixels.
        fit: How an image of another size becomes a query: scaled, or padded.

    Raises:
        InputError: There is no such arm, or no such size, block size or fit.
    """
    return spec_of(_arm(arm), block_size, image_size, fit)


def encrypt_batch(
    images: Array, spec: QuerySpec, keys: Sequence[SubKey] | None = None, *, num_threads: int = 1
) -> Array:
    """(B, 3, H, W) uint8 -> (B, 3, H, W) uint8, encrypted as an arm encrypts.

    Args:
        images: numpy array, or torch tensor on any device; the result is of the same kind.
        spec: Of the arm, of `query_spec` or `model.spec`.
        keys: One for each image; by default new ones, gone when this returns.
        num_threads: Images that are encrypted at a time; the result does not depend on it.

    Raises:
        InputError: The arm encrypts nothing, or the images are not such, or their sides are no
            whole number of blocks.
    """
    if spec.cipher is None or spec.scope is None:
        raise InputError("this arm takes plain images, so nothing would be encrypted")
    fresh = [SubKey.generate() for _ in range(len(images))] if keys is None else keys
    return encryption.encrypt_batch(
        images,
        fresh,
        spec.cipher,
        block_size=spec.block_size,
        scope=spec.scope,
        num_threads=num_threads,
    )


def _arm(name: str) -> ArmConfig:
    arms = builtin_arms()
    if name not in arms:
        raise InputError(f"unknown arm {name!a}; expected one of {', '.join(arms)}")
    return arms[name]
