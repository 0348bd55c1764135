"""From an image to a query: fitted to what a model reads, and encrypted under a key."""

from typing import Final

from fl_ppseg.config.cipher_versions import check_versions
from fl_ppseg.crypto.ciphers.encryption import encrypt as encrypt_pixels
from fl_ppseg.crypto.ciphers.pixel_moves import pixel_order
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.given_images import AnyImage, as_pixels
from fl_ppseg.data.image_files import MAX_PIXELS
from fl_ppseg.data.views import scored_size, whole_image
from fl_ppseg.inference.query_image import QueryImage
from fl_ppseg.inference.query_spec import QuerySpec
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError

MAX_QUERY_PIXELS: Final = 2 * MAX_PIXELS
"""Of a padded image: a strip of one row becomes as high as the model's window."""


def encrypt(image: AnyImage, spec: QuerySpec) -> QueryImage:
    """Encrypt an image for a model, under a key that is made here and gone when this returns.

    Args:
        image: A path, a picture of Pillow's, or uint8 RGB of shape (h, w, 3) or (3, h, w); of any
            size up to 67 million pixels.
        spec: What a query must be: `model.spec`, or what a service says of its model.

    Returns:
        The query: send its `to_png()`, or give it to `model.segment`.

    Raises:
        InputError: The image cannot be read, the model takes no such query, or its cipher is of
            another version than this program's.
    """
    if not isinstance(spec, QuerySpec):
        raise InputError(
            f"expected what a query must be, a QuerySpec, got a {type(spec).__name__}; give "
            "model.spec"
        )
    if spec.adapts and spec.key == "per-client":
        raise InputError(
            "this model reads a query only with its embedding adapted to the query's key, so that "
            "the key must be where the model is; ask with fl_ppseg.Client(model).segment(image)"
        )
    if spec.key == "shared":
        raise InputError(
            "the users of this model share a key; ask with fl_ppseg.shared_client(model, key_file)"
            ".segment(image)"
        )
    if spec.key == "none":
        raise InputError(
            "this model takes plain images, so nothing would be encrypted; ask with "
            "fl_ppseg.Client(model).segment(image), which says so"
        )
    check_ciphers(spec)
    return query_of(as_pixels(image), spec, SubKey.generate())


def check_ciphers(spec: QuerySpec) -> None:
    """Check that this program encrypts as a model reads.

    Raises:
        InputError: The cipher of the spec is of another version than this program's.
    """
    check_versions(spec.versions, "queries of this model", "ask with another version of fl_ppseg")


def query_of(pixels: Pixels, spec: QuerySpec, key: SubKey | None) -> QueryImage:
    """(3, h, w) uint8 -> a query under a given key.

    Args:
        pixels: RGB.
        spec: As for `encrypt`.
        key: None: the query holds the image as it is, whatever the spec says.

    Raises:
        InputError: Padded to the model's window the image would have too many pixels.
    """
    size = (pixels.shape[1], pixels.shape[2])
    height, width = scored_size(size, spec.image_size, spec.fit, spec.block_size)
    if height * width > MAX_QUERY_PIXELS:
        raise InputError(
            f"image of {size[0]} x {size[1]} pixels (height x width), of which the model reads "
            f"{height} x {width}, at most {MAX_QUERY_PIXELS / 1e6:.0f} million; cut it into parts"
        )
    fitted, place = whole_image(pixels, spec.image_size, spec.fit, spec.block_size)
    order = None
    if key is not None and spec.cipher is not None and spec.scope is not None:
        side, whole = spec.block_size, (fitted.shape[1], fitted.shape[2])
        fitted = encrypt_pixels(fitted, key, spec.cipher, block_size=side, scope=spec.scope)
        if spec.answers == "permuted":
            order = pixel_order(spec.cipher, key, whole, side, spec.scope)
    return QueryImage(fitted, size, None if spec.fit == "resize" else place, order)
