"""The audit of identity: owners' crops, attackers' crops, and counts of what is read of the first.

Of each size of frames and blocks, plates and faces are read in three ways: as they are, from one
mean a block, and from what a survivor network restores of each canonical form. Whoever reads has
learnt from crops of its own that it sees in the same way.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from fl_ppseg.audit.attacks.face_matching import match_faces
from fl_ppseg.audit.attacks.plate_reading import read_plates
from fl_ppseg.audit.attacks.reader import Budget, Planes, seen_of
from fl_ppseg.audit.attacks.restored_crops import restored
from fl_ppseg.audit.attacks.thumbnail import block_colours, enlarged
from fl_ppseg.audit.identity.crops import face_crops, plate_crops
from fl_ppseg.audit.identity.effort import FACE, LETTER, IdentityEffort, pixels
from fl_ppseg.audit.identity.faces import draw_people
from fl_ppseg.audit.identity.plates import ALPHABET, NUM_CHARACTERS, draw_truths
from fl_ppseg.federation.provenance import commit
from fl_ppseg.leaks.identity import (
    MEANS,
    PLAIN,
    Count,
    Frame,
    IdentityTable,
    Reading,
    Thumbnails,
)
from fl_ppseg.leaks.scores import score_images
from fl_ppseg.progress.steps import StepProgress
from fl_ppseg.scenes.cities import city_style
from fl_ppseg.scenes.render import render_scene
from fl_ppseg.system.version import VERSION

OWNERS: Final = "owners-street"
ATTACKERS: Final = "attackers-street"
"""Cities behind the crops; each has a style of its own."""
RESTORED: Final = 8
READ: Final = 48
"""Crops of a step of the survivor network and of a reader: smaller than other attacks' frames."""

Seen = Callable[[Planes, Planes], tuple[Planes, Planes]]
"""(attacker's own crops, targets) -> both as they are seen; of the first the second half."""


@dataclass(frozen=True, eq=False)
class Plates:
    """Crops around plates, with what stands on them."""

    crops: Planes
    truths: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Faces:
    """Crops around faces, and another photograph of each of these people."""

    crops: Planes
    photographs: Planes


def identify(
    sizes: Sequence[tuple[int, int]],
    block_sizes: Sequence[int],
    forms: Sequence[str],
    effort: IdentityEffort,
    seed: int,
    progress: StepProgress,
) -> IdentityTable:
    """Count what can be read, for each size of frames and of blocks.

    Args:
        sizes: (H, W) of frames.
        block_sizes: Sides M of blocks, multiples of 4.
        forms: Canonical forms to restore.
        effort: Size of the attacks.
        seed: Draws everything.
        progress: Shows what is done.
    """
    started = time.monotonic()
    frames: list[Frame] = []
    thumbnails: list[Thumbnails] = []
    total = len(sizes) * len(block_sizes)
    for size in sizes:
        for block_size in block_sizes:
            progress.update("reading plates and faces", len(frames), total)
            frames.append(_frame(size, block_size, forms, effort, seed))
            thumbnails.append(thumbnails_of(size, block_size, effort.num_scenes, seed))
    progress.update("reading plates and faces", total, total)
    return IdentityTable(
        budget=effort.budget,
        effort={name: float(value) for name, value in asdict(effort).items()},
        made={"fl_ppseg": VERSION, "commit": commit(), "seed": str(seed)},
        seconds=round(time.monotonic() - started, 1),
        frames=tuple(frames),
        thumbnails=tuple(thumbnails),
    )


def draw_plates(count: int, height: float, block_size: int, whose: str, seed: int) -> Plates:
    """Crops of random plates; heights in pixels."""
    truths = draw_truths(count, np.random.default_rng([seed, 3]))
    return Plates(plate_crops(truths, height, block_size, whose, seed), truths)


def draw_faces(count: int, height: float, block_size: int, whose: str, seed: int) -> Faces:
    """Crops of random people, and another photograph of each, from another place."""
    people = draw_people(count, np.random.default_rng([seed, 4]))
    crops = face_crops(people, height, block_size, whose, seed)
    photographs = face_crops(people, height, block_size, f"{whose}-portraits", seed + 1)
    return Faces(crops, photographs)


def _frame(
    size: tuple[int, int], block_size: int, forms: Sequence[str], effort: IdentityEffort, seed: int
) -> Frame:
    letter, face = pixels(LETTER, size[0]), pixels(FACE, size[0])
    mine, theirs = 4 * seed + 1, 4 * seed + 3
    own = draw_plates(effort.num_public, letter, block_size, ATTACKERS, mine)
    plates = draw_plates(effort.num_plates, letter, block_size, OWNERS, theirs)
    own_faces = draw_faces(effort.num_public, face, block_size, ATTACKERS, mine)
    faces = draw_faces(effort.num_faces, face, block_size, OWNERS, theirs)
    readings = tuple(
        _reading(name, seen, (own, plates), (own_faces, faces), block_size, effort, seed)
        for name, seen in ways(forms, block_size, effort, seed)
    )
    return Frame(
        image_size=size,
        block_size=block_size,
        letter_height=round(letter, 2),
        face_height=round(face, 2),
        chance_of_character=1 / len(ALPHABET),
        chance_of_plate=len(ALPHABET) ** -NUM_CHARACTERS,
        chance_of_face=1 / effort.num_faces,
        readings=readings,
    )


def ways(
    forms: Sequence[str], block_size: int, effort: IdentityEffort, seed: int
) -> Iterator[tuple[str, Seen]]:
    """Name of a reading, and how crops are seen in it."""
    yield PLAIN, lambda own, targets: (_second_half(own), targets)
    yield (
        MEANS,
        lambda own, targets: (means(_second_half(own), block_size), means(targets, block_size)),
    )
    # networks that ship know streets; of plates they restored no more (0.487 in place of 0.489)
    budget = Budget(effort.network_steps, seed, batch=RESTORED, mirrors=False, from_scratch=True)
    for form in forms:
        yield form, partial(_restored, form=form, block_size=block_size, budget=budget)


def _restored(
    own: Planes, targets: Planes, *, form: str, block_size: int, budget: Budget
) -> tuple[Planes, Planes]:
    """The attack gets the canonical form of the targets, and nothing else of them."""
    survives = seen_of(targets, form, block_size, raw=False)
    return restored(own, survives, form, block_size=block_size, budget=budget)


def _second_half(crops: Planes) -> Planes:
    """The half that no survivor network has learnt from, so that all readers learn from as many."""
    return crops[len(crops) // 2 :]


def means(images: Planes, block_size: int) -> Planes:
    """(n, 3, H, W) -> (n, 3, H, W) uint8, one mean a block and channel, bicubic."""
    return enlarged(block_colours(images, block_size), block_size)


def _reading(
    name: str,
    seen: Seen,
    plates: tuple[Plates, Plates],
    faces: tuple[Faces, Faces],
    block_size: int,
    effort: IdentityEffort,
    seed: int,
) -> Reading:
    """Read the plates and faces of the second of each pair, after learning from the first."""
    budget = Budget(effort.reader_steps, seed, batch=READ)
    plate_ssim, characters, whole = count_plates(seen, *plates, block_size, budget)
    face_ssim, named = count_faces(seen, *faces, block_size, budget)
    return Reading(
        seen=name,
        plate_ssim=plate_ssim,
        face_ssim=face_ssim,
        characters=characters,
        plates=whole,
        faces=named,
    )


def count_plates(
    seen: Seen, mine: Plates, theirs: Plates, block_size: int, budget: Budget
) -> tuple[float, Count, Count]:
    """SSIM of what is seen of their plates; characters and whole plates that are read of it."""
    own, targets = seen(mine.crops, theirs.crops)
    read = read_plates(
        own,
        mine.truths[-len(own) :],
        targets,
        alphabet=len(ALPHABET),
        block_size=block_size,
        budget=budget,
    )
    is_right = read == theirs.truths
    whole = is_right.all(axis=1)
    return (
        _ssim(theirs.crops, targets, block_size),
        Count(right=int(is_right.sum()), of=is_right.size),
        Count(right=int(whole.sum()), of=whole.size),
    )


def count_faces(
    seen: Seen, mine: Faces, theirs: Faces, block_size: int, budget: Budget
) -> tuple[float, Count]:
    """SSIM of what is seen of their faces; faces that are named among all of these people."""
    own, targets = seen(mine.crops, theirs.crops)
    named = match_faces(
        own,
        mine.photographs[-len(own) :],
        targets,
        theirs.photographs,
        block_size=block_size,
        budget=budget,
    )
    right = int((named == np.arange(len(named))).sum())
    return _ssim(theirs.crops, targets, block_size), Count(right=right, of=len(named))


def thumbnails_of(size: tuple[int, int], block_size: int, num_images: int, seed: int) -> Thumbnails:
    """One mean a block of whole scenes, compared with the scenes."""
    style = city_style(OWNERS)
    scenes = [render_scene(style, seed, k, size)[0] for k in range(num_images)]
    images = np.stack([scene.transpose(2, 0, 1) for scene in scenes])
    ssim = _ssim(images, means(images, block_size), block_size)
    return Thumbnails(image_size=size, block_size=block_size, num_images=num_images, ssim=ssim)


def _ssim(truth: Planes, seen: Planes, block_size: int) -> float:
    return round(score_images(truth, np.ascontiguousarray(seen[:, :3]), block_size).ssim, 4)
