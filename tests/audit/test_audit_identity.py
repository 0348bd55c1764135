"""The audit of identity: plates keep their truth, readers read what is there and nothing else."""

import numpy as np
import pytest
import torch
from audit_streets import Encrypt

from fl_ppseg.audit import command
from fl_ppseg.audit.attacks.face_matching import match_faces
from fl_ppseg.audit.attacks.plate_reading import read_plates
from fl_ppseg.audit.attacks.reader import Budget, seen_of
from fl_ppseg.audit.attacks.restored_crops import restored
from fl_ppseg.audit.identity import plates
from fl_ppseg.audit.identity.crops import plate_crops, plate_window
from fl_ppseg.audit.identity.effort import IdentityEffort
from fl_ppseg.audit.identity.faces import draw_face, draw_people
from fl_ppseg.audit.identity.procedure import draw_plates, means
from fl_ppseg.system.errors import InputError

CIPHERS = {
    "values": "shuffle",
    "magnitudes": "shuffle+negative-positive",
    "pixels": "shuffle-spatial",
    "pixel-magnitudes": "shuffle-spatial+negative-positive",
}
BLOCK = 4  # of the test cipher's


def test_a_plate_is_cut_apart_into_the_characters_that_are_its_truth() -> None:
    """The darkest share of each cell is most like the same character of another plate."""
    rng = np.random.default_rng(0)
    truths = plates.draw_truths(40, rng)
    assert truths.shape == (40, plates.NUM_CHARACTERS) and truths.max() < len(plates.ALPHABET)
    first = [plates.draw_plate(t, 24, np.random.default_rng(5))[0] for t in truths]
    again = [plates.draw_plate(t, 24, np.random.default_rng(5))[0] for t in truths]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    apart = np.stack([plate.mean(axis=2) for plate in first])
    width = apart.shape[2] / plates.WIDTH
    for place in range(plates.NUM_CHARACTERS):
        left = round(width * (plates.MARGIN + place * plates.PITCH))
        cells = apart[:, :, left : left + round(width * plates.PITCH)].reshape(40, -1)
        same = truths[:, None, place] == truths[None, :, place]
        distance = np.abs(cells[:, None] - cells[None]).mean(axis=2)
        np.fill_diagonal(same, False)
        others = ~same & ~np.eye(40, dtype=bool)
        assert distance[same].max() < distance[others].min()


def test_crops_are_whole_blocks_the_same_from_a_seed_and_others_from_another() -> None:
    truths = plates.draw_truths(3, np.random.default_rng(1))
    crops = plate_crops(truths, 7, 8, "somewhere", 0)
    assert crops.shape[2:] == plate_window(7, 8).size
    assert not np.mod(crops.shape[2:], 8).any()
    assert np.array_equal(crops, plate_crops(truths, 7, 8, "somewhere", 0))
    assert not np.array_equal(crops, plate_crops(truths, 7, 8, "somewhere", 1))


def test_owners_and_attackers_have_other_plates_in_other_streets() -> None:
    own, others = (draw_plates(20, 4, 8, whose, seed) for whose, seed in (("a", 1), ("b", 3)))
    rows = {tuple(each) for each in own.truths.tolist()}
    assert not rows & {tuple(each) for each in others.truths.tolist()}
    assert not np.array_equal(own.crops, others.crops)


INKS = np.array([[230, 40, 40], [40, 230, 40], [40, 40, 230], [230, 230, 230]])


def barred(truths: np.ndarray) -> np.ndarray:
    """(n, 3) of 4 characters -> (n, 3, 16, 32): bars, whose height and colour are characters."""
    images = np.full((len(truths), 3, 16, 32), 60, np.uint8)
    for image, truth in zip(images, truths, strict=True):
        for place, character in enumerate(truth):
            rows, columns = slice(3 * character + 1, 16), slice(10 * place + 2, 10 * place + 10)
            image[:, rows, columns] = INKS[character][:, None, None]
    return images


def test_the_reader_reads_what_is_plain_and_nothing_from_noise() -> None:
    rng = np.random.default_rng(0)
    own, targets = rng.integers(4, size=(200, 3)), rng.integers(4, size=(60, 3))

    def read(seen: np.ndarray, given: np.ndarray, steps: int) -> np.ndarray:
        budget = Budget(steps, batch=16)
        return read_plates(seen, own, given, alphabet=4, block_size=8, budget=budget)

    assert (read(barred(own), barred(targets), 50) == targets).mean() > 0.8
    noise = rng.integers(256, size=(260, 3, 16, 32), dtype=np.uint8)
    by_chance = 0.25 + 4 * np.sqrt(0.25 * 0.75 / targets.size)
    assert (read(noise[:200], noise[200:], 10) == targets).mean() < by_chance < 0.5


def test_a_reader_is_the_same_from_a_seed() -> None:
    rng = np.random.default_rng(0)
    own = rng.integers(4, size=(30, 3))
    seen = barred(own)
    reads = [
        read_plates(seen, own, seen, alphabet=4, block_size=8, budget=Budget(2, seed))
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(reads[0], reads[1]) and not np.array_equal(reads[0], reads[2])


def test_faces_are_people_and_photographs_differ() -> None:
    person, other = draw_people(2, np.random.default_rng(0))
    seen = [
        draw_face(who, 24, np.random.default_rng(seed))[0]
        for who, seed in ((person, 0), (person, 0), (person, 1), (other, 0))
    ]
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])
    assert not np.array_equal(seen[0], seen[3])


def test_the_matcher_names_what_is_plain_and_nothing_from_noise() -> None:
    rng = np.random.default_rng(0)

    def photographs(colours: np.ndarray) -> np.ndarray:
        noisy = colours[:, :, None, None] + rng.normal(0, 5, (len(colours), 3, 16, 16))
        return noisy.clip(0, 255).astype(np.uint8)

    own, known = rng.integers(40, 215, (200, 3)), rng.integers(40, 215, (8, 3))
    mine, gallery = (photographs(own), photographs(own)), photographs(known)
    budget = Budget(40, batch=16)
    named = match_faces(*mine, photographs(known), gallery, block_size=8, budget=budget)
    assert (named == np.arange(8)).mean() > 0.5
    noise = rng.integers(256, size=(40, 3, 16, 16), dtype=np.uint8)
    blind = match_faces(*mine, noise, gallery, block_size=8, budget=Budget(5, batch=16))
    by_chance = 1 / 8 + 4 * np.sqrt(1 / 8 * 7 / 8 / 40)
    assert (blind == np.arange(40) % 8).mean() < by_chance < 0.4


@pytest.mark.parametrize("form", CIPHERS)
def test_of_a_ciphertext_the_attack_sees_the_same(form: str) -> None:
    """The crop itself may stand for its ciphertexts: their forms, and so the guesses, are equal."""
    rng = np.random.default_rng(0)
    crops = rng.integers(256, size=(2, 3, 8, 16), dtype=np.uint8)
    own = rng.integers(256, size=(4, 3, 8, 16), dtype=np.uint8)
    encrypted = Encrypt(CIPHERS[form], "per-block", 3)(crops)
    assert not np.array_equal(encrypted, crops)
    seen = [seen_of(each, form, BLOCK, raw=False) for each in (crops, encrypted)]
    assert torch.equal(*seen)
    guesses = [restored(own, each, form, block_size=BLOCK, budget=Budget(1)) for each in seen]
    assert all(np.array_equal(a, b) for a, b in zip(*guesses, strict=True))
    mine, theirs = guesses[0]
    assert mine.shape == theirs.shape == (2, 6, 8, 16)


def test_one_mean_a_block_holds_nothing_but_the_mean() -> None:
    image = np.random.default_rng(0).integers(256, size=(1, 3, 8, 16), dtype=np.uint8)
    shuffled = Encrypt("shuffle-spatial", "per-block", 0)(image)
    assert np.array_equal(means(image, BLOCK), means(shuffled, BLOCK))


def test_a_budget_has_its_own_name() -> None:
    assert IdentityEffort().budget == "full"
    assert IdentityEffort.quick().budget == "quick"
    assert IdentityEffort(num_plates=7).budget == "other"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--identity", "--arms", "plain"], "leave out --arms"),
        (["--identity", "somewhere"], "leave out a run"),
        (["--identity", "--set", "a=1"], "leave out --set"),
        (["--sizes", "64x128"], "add --identity"),
        (["--identity", "--sizes", "64x100"], "'64x100' is not a frame"),
        (["--identity", "--blocks", "6"], "'6' is not a side"),
        (["--identity", "--blocks", "16", "--sizes", "24x48"], "do not fit frames of 24x48"),
        (["--identity", "--forms", "all"], "'all' is no canonical form"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: list[str], error: str) -> None:
    with pytest.raises(InputError, match=error):
        command.main(arguments)
