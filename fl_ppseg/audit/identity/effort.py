"""Sizes of an audit of identity, and what a frame's size makes of plates and faces."""

from dataclasses import dataclass
from typing import Final, Self

from fl_ppseg.leaks.table import Budget

FOCAL: Final = 2.2
"""Focal length in picture heights: Cityscapes' camera (2,262 pixels for 1,024 rows)."""
DISTANCE: Final = 6.0
"""Metres from the camera: the next car in a queue, somebody on the kerb."""
LETTER: Final = 0.075
"""Metres, the characters of European plates."""
FACE: Final = 0.22
"""Metres from chin to crown."""


@dataclass(frozen=True)
class IdentityEffort:
    """Size of the attacks."""

    num_plates: int = 400
    """Plates to be read."""
    num_faces: int = 100
    """Faces to be named, each among all of these people."""
    num_public: int = 4000
    """Crops of the attacker's own of plates, and as many of faces."""
    network_steps: int = 600
    """Training steps of each survivor network, of 8 crops."""
    reader_steps: int = 1500
    """Training steps of each network that reads plates or names faces, of 48 crops."""
    num_scenes: int = 4
    """Whole scenes of each size whose thumbnails are scored."""

    @classmethod
    def quick(cls) -> Self:
        """For a first look: weaker attacks, fewer targets."""
        return cls(
            num_plates=40,
            num_faces=20,
            num_public=400,
            network_steps=40,
            reader_steps=60,
            num_scenes=1,
        )

    @property
    def budget(self) -> Budget:
        """Name of the effort."""
        if self == IdentityEffort():
            return "full"
        return "quick" if self == self.quick() else "other"


def pixels(metres: float, rows: int, distance: float = DISTANCE) -> float:
    """Height in pixels of what is `metres` high, in a frame of `rows` rows.

    >>> round(pixels(LETTER, 1024)), round(pixels(FACE, 1024))
    (28, 83)
    """
    return metres * FOCAL * rows / distance
