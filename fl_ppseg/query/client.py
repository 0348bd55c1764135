"""A client who asks a model in its own process, under keys that stay in its memory."""

from collections.abc import Mapping, Sequence
from typing import NoReturn

from torch import Tensor

from fl_ppseg.crypto.adaptation import adapted_embedding
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.given_images import AnyImage, as_pixels
from fl_ppseg.inference.query_image import QueryImage
from fl_ppseg.inference.segmenter import Segmentation, Segmenter
from fl_ppseg.query.asking import check_ciphers, query_of
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError


class Client:
    """Asks a model as a client of its arm does, whatever the arm.

    With keys per client, one ephemeral key serves all of its images, and where the arm's embedding
    is private, a copy of the model's is adapted to that key: key material, so the model must be
    where the key is. With keys per image each query has its own. A plain model gets plain images.

    The key lives as long as the client, cannot be printed, and neither it nor the client can be
    pickled or copied.
    """

    def __init__(
        self,
        model: Segmenter,
        key: SubKey | None = None,
        embedding: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Make a key for a model, or take one.

        Args:
            model: Of `fl_ppseg.load`.
            key: One that many images share; by default a new one, that nobody else has. Keys of
                vaults: `fl_ppseg.vault_client`, `fl_ppseg.shared_client`.
            embedding: The patch embedding that reads queries under the key; by default the model's,
                adapted to it.

        Raises:
            InputError: The model's users share a key, and none is given; a key or an embedding is
                given for a model that takes none; its cipher is of another version than this
                program's; or no embedding can be adapted to it.
        """
        spec = model.spec
        check_ciphers(spec)
        takes_one = spec.key in ("per-client", "shared")
        if spec.key == "shared" and key is None:
            raise InputError(
                f"{model.name}: its users share a key; ask with fl_ppseg.shared_client(model, "
                "key_file)"
            )
        if key is not None and not takes_one:
            raise InputError(f"{model.name}: no key serves several of its queries; leave it out")
        self._key = (key or SubKey.generate()) if takes_one else None
        self._model = model
        if spec.adapts and self._key is not None:
            if embedding is None:
                public = model.network.state_dict()
                embedding = adapted_embedding(public, spec.cipher, spec.scope, self._key)
            self._model = model.with_embedding(embedding)
        elif embedding is not None:
            raise InputError(f"{model.name}: reads all queries by its own embedding; leave it out")

    def query(self, image: AnyImage) -> QueryImage:
        """An image as this client shows it to the model: of a plain model the image itself.

        Raises:
            InputError: As `fl_ppseg.encrypt`.
        """
        return self.query_of(as_pixels(image))

    def query_of(self, pixels: Pixels) -> QueryImage:
        """(3, h, w) uint8 RGB -> a query, as `query`."""
        spec = self._model.spec
        fresh = SubKey.generate() if spec.key == "per-image" else self._key
        return query_of(pixels, spec, fresh)

    def segment(self, image: AnyImage) -> Segmentation:
        """An image -> classes and confidence of its pixels, at its own size.

        Raises:
            InputError: As `fl_ppseg.encrypt`.
        """
        return self._model.segment(self.query(image))

    def answers(self, queries: Sequence[QueryImage]) -> list[Segmentation]:
        """The model's answers to queries of this client, of images of one size, in one batch.

        Raises:
            InputError: As `Segmenter.segment_alike`.
        """
        return self._model.segment_alike(queries)

    def __repr__(self) -> str:
        """The model alone."""
        return f"Client of {self._model!r}"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse pickle, copy and deepcopy alike: a key stays where it was made."""
        raise TypeError("a Client cannot be pickled or copied: its key stays where it was made")
