"""The canvas: colour, nearness and label of each pixel, painted far to near."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fl_ppseg.scenes.camera import NEAR, Camera
from fl_ppseg.scenes.light import Light
from fl_ppseg.scenes.mesh import Item

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

FADE = 60.0
"""Distance in metres over which nearness falls by e."""
SMALLEST = 0.5
"""Paint narrower than this many pixels is left out: Pillow would blow it up to a whole pixel."""


def nearness(z: Floats) -> Floats:
    """Distance in metres -> 255 * exp(-z / FADE), the fourth channel of the picture."""
    return np.asarray(255.0 * np.exp(z / -FADE), np.float32)


def draw_items(
    picture: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    items: Sequence[Item],
    camera: Camera,
    light: Light,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Paint the patches that face the camera, in their order, on two pictures in step.

    Args:
        picture: (H, W, 4) colour and nearness of what lies behind all items.
        labels: (H, W) its labelIds.
        items: in painting order.
        camera: where they are seen from.
        light: what lights them.

    Returns:
        The two pictures with the items.
    """
    coloured, labelled = Image.fromarray(picture, "RGBA"), Image.fromarray(labels, "L")
    paint, mark = ImageDraw.Draw(coloured).polygon, ImageDraw.Draw(labelled).polygon
    scene = _Assembly(items)
    points = camera.project(scene.vertices)
    shown = scene.visible(points, camera)
    outline = points.ravel().tolist()
    inks = [tuple(ink) for ink in scene.inks(light, shown).tolist()]
    spans = (2 * scene.starts[shown]).tolist(), (2 * scene.stops[shown]).tolist()
    names = scene.labels[shown].tolist()
    painted = (scene.roles[shown] >= 0).tolist()
    for start, stop, ink, label, paints in zip(*spans, inks, names, painted, strict=True):
        shape = outline[start:stop]
        if paints:
            paint(shape, ink)
        if label >= 0:
            mark(shape, label)
    return np.asarray(coloured), np.asarray(labelled)


class _Assembly:
    """All items as one mesh in street coordinates."""

    def __init__(self, items: Sequence[Item]) -> None:
        meshes = [item.mesh for item in items]
        num_vertices = np.asarray([len(mesh.vertices) for mesh in meshes])
        num_patches = np.asarray([len(mesh.roles) for mesh in meshes])
        num_roles = np.asarray([len(item.palette) for item in items])
        offset = np.repeat(np.cumsum(num_vertices) - num_vertices, num_patches)
        role_offset = np.repeat(np.cumsum(num_roles) - num_roles, num_patches)
        pose = np.asarray([(i.x, i.z, i.heading, *i.scale) for i in items], np.float32)
        vertices = np.concatenate([mesh.vertices for mesh in meshes])
        placed = np.repeat(pose, num_vertices, axis=0)
        self.vertices = _turn(vertices * placed[:, 3:], placed[:, 2])
        self.vertices[:, ::2] += placed[:, :2]
        normals = np.concatenate([mesh.normals for mesh in meshes])
        self.normals = _turn(normals, np.repeat(pose[:, 2], num_patches))
        self.starts = np.concatenate([mesh.starts for mesh in meshes]) + offset
        self.stops = np.concatenate([mesh.stops for mesh in meshes]) + offset
        self.roles = np.concatenate([mesh.roles for mesh in meshes])
        self.labels = np.concatenate([mesh.labels for mesh in meshes])
        self.flat = np.concatenate([mesh.flat for mesh in meshes])
        self._shades = np.maximum(self.roles, 0) + role_offset
        self._palette = np.concatenate([item.palette for item in items])

    def visible(self, points: Floats, camera: Camera) -> Indices:
        """Patches in view that face the camera and are large enough to be seen."""
        low = np.minimum.reduceat(points, self.starts)
        high = np.maximum.reduceat(points, self.starts)
        rows, columns = camera.size
        inside = (high > 0).all(1) & (low < (columns, rows)).all(1)
        ahead = np.maximum.reduceat(self.vertices[:, 2], self.starts) > NEAR
        seen = (high - low > SMALLEST).all(1) | (self.labels >= 0)
        return np.flatnonzero(inside & ahead & seen & (self.flat | self._facing(camera)))

    def inks(self, light: Light, patches: Indices) -> NDArray[np.uint8]:
        """(K, 4) lit colour and nearness of some patches."""
        colours = self._palette[self._shades[patches]] * light.on(self.normals[patches])
        near = nearness(self.vertices[self.starts[patches], 2:])
        return np.concatenate((np.clip(colours, 0, 255), near), axis=1).astype(np.uint8)

    def _facing(self, camera: Camera) -> NDArray[np.bool_]:
        """Patches whose normal points to the side where the camera is."""
        sight = self.vertices[self.starts]
        z = sight[:, 2]
        sight[:, 0] += (camera.bend * z + camera.yaw) * z
        sight[:, 1] -= camera.height
        return np.asarray((self.normals * sight).sum(1) < 0)


def _turn(vectors: Floats, heading: Floats) -> Floats:
    """(N, 3) vectors, each turned about the vertical by its heading in radians."""
    cosine, sine = np.cos(heading), np.sin(heading)
    x, y, z = vectors.T
    return np.stack((x * cosine + z * sine, y, z * cosine - x * sine), axis=1)
