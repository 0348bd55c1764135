"""Meshes of flat patches in metres, of which all objects in a street are made."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]

UNPAINTED = -1
"""Role of a patch that marks the label map only (a see-through fence, the disc of a wheel)."""
UNLABELLED = -1
"""Label of a patch that is paint only (a window, a lamp): the label below stays."""
TOWARDS_CAMERA = (0.0, 0.35, -0.94)


@dataclass(frozen=True, eq=False)
class Mesh:
    """P patches over V vertices, in painting order."""

    vertices: Floats
    """(V, 3) metres; a patch's vertices follow one another."""
    starts: NDArray[np.intp]
    """(P,) index of each patch's first vertex."""
    stops: NDArray[np.intp]
    """(P,) index after each patch's last vertex."""
    roles: NDArray[np.intp]
    """(P,) row of the palette, or UNPAINTED."""
    labels: NDArray[np.intp]
    """(P,) labelId, or UNLABELLED."""
    normals: Floats
    """(P, 3) unit vectors."""
    flat: NDArray[np.bool_]
    """(P,) true where a patch is seen from both sides."""


@dataclass(frozen=True, eq=False)
class Item:
    """A mesh, placed: turned by `heading` (0 looks away from the camera), scaled and moved."""

    mesh: Mesh
    palette: Floats
    """(R, 3) colours of the roles, 0..255."""
    x: float = 0.0
    z: float = 0.0
    heading: float = 0.0
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)


class Sketch:
    """Collects patches; `build` freezes them to a mesh."""

    def __init__(self, inside: Sequence[float] = (0.0, 0.0, 0.0)) -> None:
        """Start an empty sketch of a solid around the point `inside`: normals look away from it."""
        self._inside = np.asarray(inside, np.float32)
        self._points: list[Floats] = []
        self._sizes: list[int] = []
        """Vertices of each patch."""
        self._roles: list[int] = []
        self._kinds: list[tuple[int, int, bool]] = []
        """(number of patches, label, flat) of each addition, with its normal below."""
        self._normals: list[Floats] = []

    def solid(self, points: ArrayLike, role: int, label: int = UNLABELLED) -> None:
        """Add a polygon, (N, 3), that is seen from outside only."""
        corners = np.asarray(points, np.float32)
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        normal /= np.linalg.norm(normal) + 1e-9
        away = corners.mean(0) - self._inside
        self._add(corners, 1, [role], label, normal if normal @ away >= 0 else -normal, False)

    def sheet(
        self,
        points: ArrayLike,
        role: int,
        label: int = UNLABELLED,
        normal: Sequence[float] = TOWARDS_CAMERA,
    ) -> None:
        """Add a polygon, (N, 3) or (N, 2) at z = 0, that is seen from both sides."""
        corners = np.asarray(points, np.float32)
        corners = np.pad(corners, ((0, 0), (0, 3 - corners.shape[1])))
        self._add(corners, 1, [role], label, np.asarray(normal, np.float32), True)

    def quads(
        self,
        points: ArrayLike,
        roles: Iterable[int],
        normal: Sequence[float],
        label: int = UNLABELLED,
    ) -> None:
        """Add quadrilaterals, (K, 4, 3), of one plane that is seen from where `normal` points."""
        corners = np.asarray(points, np.float32)
        flattened = corners.reshape(-1, 3)
        self._add(
            flattened, len(corners), list(roles), label, np.asarray(normal, np.float32), False
        )

    def build(self) -> Mesh:
        """The finished mesh."""
        sizes = np.asarray(self._sizes)
        stops = np.cumsum(sizes)
        number, labels, flat = zip(*self._kinds, strict=True)
        return Mesh(
            vertices=np.concatenate(self._points),
            starts=stops - sizes,
            stops=stops,
            roles=np.asarray(self._roles),
            labels=np.repeat(np.asarray(labels), number),
            normals=np.repeat(np.stack(self._normals), number, axis=0),
            flat=np.repeat(np.asarray(flat), number),
        )

    def _add(
        self, corners: Floats, number: int, roles: list[int], label: int, normal: Floats, flat: bool
    ) -> None:
        self._points.append(corners)
        self._sizes.extend([len(corners) // max(number, 1)] * number)
        self._roles.extend(roles)
        self._kinds.append((number, int(label), flat))
        self._normals.append(np.asarray(normal, np.float32))


def disc(x: float, y: float, radius: float, corners: int = 12, squash: float = 1.0) -> Floats:
    """Regular polygon around (x, y): (corners, 2); `squash` < 1 makes it narrower."""
    angles = [2 * pi * k / corners for k in range(corners)]
    points = [(x + squash * radius * cos(a), y + radius * sin(a)) for a in angles]
    return np.asarray(points, np.float32)


def rectangle(x: float, y: float, width: float, height: float) -> Floats:
    """Upright rectangle that stands on y, its middle at x: (4, 2)."""
    left, right, top = x - width / 2, x + width / 2, y + height
    return np.asarray([(left, y), (right, y), (right, top), (left, top)], np.float32)


def stroke(ax: float, ay: float, bx: float, by: float, width: float) -> Floats:
    """A straight bar from a to b as a quadrilateral: (4, 2)."""
    along = np.asarray((bx - ax, by - ay), np.float32)
    across = np.asarray((-along[1], along[0])) * (width / 2 / (np.linalg.norm(along) + 1e-9))
    a, b = np.asarray((ax, ay)), np.asarray((bx, by))
    return np.asarray([a - across, b - across, b + across, a + across], np.float32)
