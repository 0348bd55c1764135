"""Federated semantic segmentation on perceptually encrypted images, without key sharing.

    import fl_ppseg

    model = fl_ppseg.load("RUN/per-image-invariant-labels")
    query = fl_ppseg.encrypt("street.png", model.spec)  # under a key that is gone when this returns
    labels, confidence = model.segment(query)           # at the image's own size
    picture = fl_ppseg.overlay("street.png", labels, classes=model.classes)
    fl_ppseg.save(model, "segmenter")                   # a folder that `load` reads

Any arm, encrypted or not: `fl_ppseg.Client(model).segment("street.png")`. With keys of vaults:
`vault_client`, `shared_client`. For a training loop of one's own: `create_model`, `query_spec`,
`encrypt_batch`, `to_input`.

Nothing is loaded before it is used. Every error that is the caller's is an `InputError`, of one
line.

>>> import fl_ppseg
>>> import numpy as np
>>> image = np.zeros((100, 150, 3), np.uint8)
>>> spec = fl_ppseg.query_spec("per-image-invariant", image_size=(64, 128))
>>> query = fl_ppseg.encrypt(image, spec)
>>> query
QueryImage(64 x 128 pixels, of an image of 100 x 150)
>>> query.to_png()[:4]
b'\\x89PNG'
"""

from importlib import import_module
from typing import TYPE_CHECKING

from fl_ppseg.system.version import VERSION

if TYPE_CHECKING:
    from clients.query import shared_client, vault_client
    from fl_ppseg.data.classes import ClassTable, load_class_table
    from fl_ppseg.data.pixels import to_input
    from fl_ppseg.inference.loading import load
    from fl_ppseg.inference.overlays import overlay
    from fl_ppseg.inference.query_image import QueryImage
    from fl_ppseg.inference.query_spec import QuerySpec
    from fl_ppseg.inference.saving import save
    from fl_ppseg.inference.segmenter import Segmentation, Segmenter
    from fl_ppseg.query.asking import encrypt
    from fl_ppseg.query.client import Client
    from fl_ppseg.query.own_training import create_model, encrypt_batch, query_spec
    from fl_ppseg.system.errors import InputError

__version__ = VERSION
__all__ = [
    "ClassTable",
    "Client",
    "InputError",
    "QueryImage",
    "QuerySpec",
    "Segmentation",
    "Segmenter",
    "__version__",
    "create_model",
    "encrypt",
    "encrypt_batch",
    "load",
    "load_class_table",
    "overlay",
    "query_spec",
    "save",
    "shared_client",
    "to_input",
    "vault_client",
]

_HOMES = {
    "ClassTable": "fl_ppseg.data.classes",
    "Client": "fl_ppseg.query.client",
    "InputError": "fl_ppseg.system.errors",
    "QueryImage": "fl_ppseg.inference.query_image",
    "QuerySpec": "fl_ppseg.inference.query_spec",
    "Segmentation": "fl_ppseg.inference.segmenter",
    "Segmenter": "fl_ppseg.inference.segmenter",
    "create_model": "fl_ppseg.query.own_training",
    "encrypt": "fl_ppseg.query.asking",
    "encrypt_batch": "fl_ppseg.query.own_training",
    "load": "fl_ppseg.inference.loading",
    "load_class_table": "fl_ppseg.data.classes",
    "overlay": "fl_ppseg.inference.overlays",
    "query_spec": "fl_ppseg.query.own_training",
    "save": "fl_ppseg.inference.saving",
    "shared_client": "clients.query",
    "to_input": "fl_ppseg.data.pixels",
    "vault_client": "clients.query",
}
"""The library's names, and the modules that define them: those that type checkers see above."""


def __dir__() -> list[str]:
    """What the library offers, for `dir()` and completion."""
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a name when it is first asked for (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(_HOMES[name]), name)
        globals()[name] = found
        return found
