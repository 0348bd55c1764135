"""The library as it is typed: `import fl_ppseg`, and what it offers."""

import ast
import pickle
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_runs
import torch
from checkout import CHECKOUT
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

import fl_ppseg
from clients.vault.assignment import Assignment
from clients.vault.keys.keyring import ensure_shared_subkey
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.dataset import Scene
from fl_ppseg.experiment import scoring
from fl_ppseg.federation.checkpoints import load_checkpoint
from fl_ppseg.learning.evaluation import confusion_counts
from fl_ppseg.setr.shipped import shipped_weights

PHOTO = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)
LIGHT = """
import sys
import fl_ppseg
assert "load" in dir(fl_ppseg)
heavy = {"torch", "numpy", "pydantic", "PIL", "yaml", "cryptography", "timm", "flwr"}
print(heavy & set(sys.modules))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an arm of each kind."""
    folder = tmp_path_factory.mktemp("library") / "run"
    for arm in ("plain", "per-image-invariant", "per-client-private", "per-client"):
        small_runs.add_checkpoint(folder, arm)
    for arm in ("conventional-1", "conventional-2", "domain-adaptation"):
        small_runs.add_checkpoint(folder, arm)
    small_runs.add_results(folder)
    return folder


@pytest.fixture(scope="module")
def cropped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Arms whose images are cut, not scaled."""
    folder = tmp_path_factory.mktemp("cropped") / "run"
    for arm in ("plain", "per-image-invariant"):
        small_runs.add_checkpoint(folder, arm, fit="crop")
    return folder


# The names.


def test_importing_the_library_loads_nothing_heavy() -> None:
    said = subprocess.run(
        [sys.executable, "-c", LIGHT], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert said.stdout == "set()\n"


def test_names_are_there_and_those_that_type_checkers_see() -> None:
    tree = ast.parse((CHECKOUT / "fl_ppseg" / "__init__.py").read_text("utf-8"))
    (block,) = [
        n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
    ]
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == fl_ppseg._HOMES
    assert sorted(fl_ppseg.__all__) == sorted([*seen, "__version__"])
    for name, home in seen.items():
        assert getattr(fl_ppseg, name).__module__ == home, name
        assert getattr(fl_ppseg, name).__doc__, name
    assert set(fl_ppseg.__all__) <= set(dir(fl_ppseg))
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        fl_ppseg.laod  # noqa: B018


# The five verbs.


def test_a_photograph_is_segmented_as_it_is_typed(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "street.png"
    Image.fromarray(PHOTO).save(path)
    model = fl_ppseg.load(str(run / "per-image-invariant"))
    query = fl_ppseg.encrypt(str(path), model.spec)
    labels, confidence = model.segment(query)
    assert (labels.shape, labels.dtype) == ((45, 70), np.uint8)
    assert (confidence.shape, confidence.dtype) == ((45, 70), np.float32)
    assert len(np.unique(labels)) > 2 and 0 < confidence.min() < confidence.max() <= 1
    picture = fl_ppseg.overlay(path, labels, classes=model.classes, opacity=0.25)
    colours = model.classes.colours[labels]
    assert np.abs(np.asarray(picture) - (0.75 * PHOTO + 0.25 * colours)).max() <= 0.5
    again = fl_ppseg.load(fl_ppseg.save(model, tmp_path / "exported"))
    np.testing.assert_array_equal(again.segment(query).labels, labels)


@pytest.mark.parametrize(
    "given",
    [
        lambda path: path,
        lambda path: PHOTO,
        lambda path: PHOTO.transpose(2, 0, 1),
        lambda path: Image.fromarray(PHOTO),
        lambda path: Image.open(path),
    ],
    ids=["path", "HWC", "CHW", "picture", "opened"],
)
def test_an_image_is_the_same_however_it_is_given(
    given: Callable[[Path], Any], run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "street.png"
    Image.fromarray(PHOTO).save(path)
    model = fl_ppseg.load(run / "plain")
    found = fl_ppseg.Client(model).query(given(path))
    np.testing.assert_array_equal(found.pixels, fl_ppseg.Client(model).query(PHOTO).pixels)


def test_a_turned_photograph_is_upright_by_path_and_by_picture(run: Path, tmp_path: Path) -> None:
    path, exif = tmp_path / "turned.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PHOTO).save(path, exif=exif, quality=95)
    client = fl_ppseg.Client(fl_ppseg.load(run / "plain"))
    by_path, by_picture = client.query(path), client.query(Image.open(path))
    assert by_path.size == by_picture.size == (70, 45)
    np.testing.assert_array_equal(by_path.pixels, by_picture.pixels)


@pytest.mark.parametrize(
    "arm", ["plain", "per-image-invariant", "per-client-private", "per-image-invariant-labels"]
)
@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_labels_score_to_the_bit_what_evaluate_counts(
    arm: str, fit: str, scenes: Path, images: tuple[Scene, ...], tmp_path: Path
) -> None:
    """Of the same key where the answer depends on it to rounding."""
    folder = small_runs.add_checkpoint(tmp_path / "run", arm, fit)
    model, checkpoint = fl_ppseg.load(folder), load_checkpoint(folder)
    key = SubKey.from_bytes(bytes(range(32)))
    client = fl_ppseg.Client(model, key if arm == "per-client-private" else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SubKey, "generate", classmethod(lambda cls: cls.from_bytes(bytes(range(32)))))
        queries = scoring.queries(checkpoint, None)
        expected = scoring.counts_by_image(checkpoint, {"aachen": images[:3]}, queries, "cpu")
    for scene, counts in zip(images[:3], expected["aachen"], strict=True):
        image, labels = scene.load()
        found = torch.from_numpy(client.segment(image).labels)
        mine = confusion_counts(found, torch.from_numpy(labels), 19)
        np.testing.assert_array_equal(mine.numpy(), counts)


@pytest.mark.parametrize("size", [(45, 70), (31, 200), (33, 65), (1, 1), (96, 64)])
def test_an_image_that_is_padded_gets_the_labels_of_its_own_pixels(
    size: tuple[int, int], cropped: Path
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    model = fl_ppseg.load(cropped / "plain")
    query = fl_ppseg.Client(model).query(image)
    height, width = query.pixels.shape[1:]
    assert height % 8 == width % 8 == 0 and height >= 32 and width >= 64
    assert query.place is not None
    top, left = query.place
    own = query.pixels[:, top : top + size[0], left : left + size[1]]
    np.testing.assert_array_equal(own, image.transpose(2, 0, 1))
    whole = model.segment_batch(query.pixels[None])[0].labels
    found = model.segment(query).labels
    np.testing.assert_array_equal(found, whole[top : top + size[0], left : left + size[1]])


def test_an_invariant_model_answers_alike_under_every_key(run: Path) -> None:
    model = fl_ppseg.load(run / "per-image-invariant")
    first, second = (fl_ppseg.encrypt(PHOTO, model.spec) for _ in range(2))
    assert not np.array_equal(first.pixels, second.pixels)
    for one, other in zip(model.segment(first), model.segment(second), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_an_owner_puts_answers_in_place_and_a_service_cannot(fit: str, tmp_path: Path) -> None:
    """Labels of a ciphertext's pixels, as a service gives them, and with the decoder's scores."""
    folder = small_runs.add_checkpoint(tmp_path / "run", "per-image-invariant-labels", fit)
    model = fl_ppseg.load(folder)
    assert model.spec.answers == "permuted"
    first, second = (fl_ppseg.encrypt(PHOTO, model.spec) for _ in range(2))
    sent = [model.segment_batch(q.pixels[None], q.answer_size)[0].labels for q in (first, second)]
    assert (sent[0] != sent[1]).any()
    one, other = (q.restored(labels) for q, labels in zip((first, second), sent, strict=True))
    np.testing.assert_array_equal(one, other)
    assert one.shape == PHOTO.shape[:2]
    whole = [model.segment(query) for query in (first, second)]
    np.testing.assert_array_equal(whole[0].labels, whole[1].labels)
    assert (whole[0].labels != one).any()
    other = model.spec.model_copy(update={"answers": "in-place"})
    with pytest.raises(fl_ppseg.InputError, match="a query was made for other ones"):
        model.segment_alike([first, fl_ppseg.encrypt(PHOTO, other)])
    with pytest.raises(fl_ppseg.InputError, match="got one whose answers are permuted"):
        fl_ppseg.Segmenter(model.network, other, model.classes, "lying")
    saved = fl_ppseg.load(fl_ppseg.save(model, tmp_path / "saved"))
    np.testing.assert_array_equal(saved.segment(first).labels, whole[0].labels)


# Arms whose queries need more than a key of their own.


def test_a_private_embedding_is_adapted_to_a_key_of_the_clients_own(run: Path) -> None:
    model = fl_ppseg.load(run / "per-client-private")
    plain = fl_ppseg.Segmenter(model.network, model.spec, model.classes, "plain")
    shown = fl_ppseg.Client(fl_ppseg.load(run / "plain")).query(PHOTO)
    expected = plain.segment_batch(shown.pixels[None], (45, 70))[0]
    client, other = fl_ppseg.Client(model), fl_ppseg.Client(model)
    found = client.segment(PHOTO)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-4)
    assert (found.labels == expected.labels).mean() > 0.99
    query = client.query(PHOTO)
    np.testing.assert_array_equal(query.pixels, client.query(PHOTO).pixels)  # one key
    wrong = other.answers([query])[0]
    assert (wrong.labels != expected.labels).mean() > 0.1
    with pytest.raises(fl_ppseg.InputError, match=r"Client\(model\)\.segment"):
        fl_ppseg.encrypt(PHOTO, model.spec)
    with pytest.raises(fl_ppseg.InputError, match=r"Client\(model\)\.segment"):
        model.segment(query)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    fl_ppseg.Client(model)
    assert all(torch.equal(v, before[n]) for n, v in model.network.state_dict().items())


def test_neither_query_nor_client_holds_a_key_that_can_be_taken(run: Path, tmp_path: Path) -> None:
    model = fl_ppseg.load(run / "per-client-private")
    secret = bytes(range(100, 132))
    client = fl_ppseg.Client(model, SubKey.from_bytes(secret))
    query = client.query(PHOTO)
    for shown in (repr(client), repr(query), str(query)):
        assert secret.hex() not in shown and "array" not in shown
    assert secret not in pickle.dumps(query) and secret not in query.to_png()
    assert {*vars(query)} == {"pixels", "size", "place", "order"} and query.order is None
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(client)
    with pytest.raises(fl_ppseg.InputError, match="cannot be exported"):
        fl_ppseg.save(client._model, tmp_path / "never")
    assert not (tmp_path / "never").exists()
    with pytest.raises(ValueError, match="read-only"):
        query.pixels[0, 0, 0] = 1


def test_a_png_holds_the_ciphertext_alone(run: Path) -> None:
    query = fl_ppseg.encrypt(PHOTO, fl_ppseg.load(run / "per-image-invariant").spec)
    data = query.to_png()
    names = []
    place = 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        names.append(data[place + 4 : place + 8])
        place += 12 + length
    assert set(names) == {b"IHDR", b"IDAT", b"IEND"}
    shown = np.asarray(Image.open(BytesIO(data)))
    np.testing.assert_array_equal(shown.transpose(2, 0, 1), query.pixels)


@pytest.mark.parametrize("arm", ["conventional-1", "conventional-2", "domain-adaptation"])
def test_a_shared_key_is_read_from_its_file(arm: str, run: Path, tmp_path: Path) -> None:
    key = ensure_shared_subkey(tmp_path / "vaults", builtin_arms()[arm])
    model = fl_ppseg.load(run / arm)
    client = fl_ppseg.shared_client(model, tmp_path / "vaults" / ".shared" / "master.key")
    expected = fl_ppseg.Client(model, key)
    np.testing.assert_array_equal(client.query(PHOTO).pixels, expected.query(PHOTO).pixels)
    np.testing.assert_array_equal(client.segment(PHOTO).labels, expected.segment(PHOTO).labels)
    for refused in (lambda: fl_ppseg.Client(model), lambda: fl_ppseg.encrypt(PHOTO, model.spec)):
        with pytest.raises(fl_ppseg.InputError, match="shared_client"):
            refused()


def test_a_client_asks_under_the_key_of_its_vault(
    run: Path, job: Assignment, folders: dict[str, Path]
) -> None:
    model = fl_ppseg.load(run / "per-client-private")
    vaults, name = job.vault.parent, job.vault.name
    client = fl_ppseg.vault_client(model, vaults, name)
    again = fl_ppseg.vault_client(model, str(vaults), name)
    np.testing.assert_array_equal(client.query(PHOTO).pixels, again.query(PHOTO).pixels)
    other = fl_ppseg.Client(model)
    np.testing.assert_allclose(
        client.segment(PHOTO).confidence, other.segment(PHOTO).confidence, atol=1e-4
    )
    with pytest.raises(fl_ppseg.InputError, match="no master key"):
        fl_ppseg.vault_client(model, vaults, "nobody")
    with pytest.raises(fl_ppseg.InputError, match="leave the vault out"):
        fl_ppseg.vault_client(fl_ppseg.load(run / "per-image-invariant"), vaults, name)


# What is refused.


def test_bad_images_are_one_line(run: Path, tmp_path: Path) -> None:
    spec = fl_ppseg.load(run / "per-image-invariant").spec
    (tmp_path / "text.png").write_text("not an image")
    bad: list[Any] = [
        tmp_path / "text.png",
        tmp_path / "missing.png",
        PHOTO.astype(np.float32),
        PHOTO[..., 0],
        np.zeros((3, 8, 3), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (30_000, 30_000, 3)),
        Image.new("L", (30_000, 2_300)),
        None,
    ]
    for image in bad:
        with pytest.raises(fl_ppseg.InputError) as caught:
            fl_ppseg.encrypt(image, spec)
        assert "\n" not in str(caught.value)


def test_what_a_newcomer_might_give_is_one_line(run: Path) -> None:
    model: Any = fl_ppseg.load(run / "per-image-invariant")
    size, arm = (32, 64), "per-image-invariant"
    calls: dict[str, Callable[[], object]] = {
        "make one with fl_ppseg.encrypt": lambda: model.segment("street.jpg"),
        "got a ndarray": lambda: model.segment(PHOTO),
        "give model.spec": lambda: fl_ppseg.encrypt(PHOTO, model),
        "image_size": lambda: fl_ppseg.query_spec(arm, image_size=(64,)),  # type: ignore[arg-type]
        "fit": lambda: fl_ppseg.query_spec(arm, image_size=size, fit="x"),  # type: ignore[arg-type]
        "block_size": lambda: fl_ppseg.query_spec(arm, image_size=size, block_size=0),
        "create_model": lambda: fl_ppseg.create_model(arm, image_size=(64, 0)),
    }
    for said, call in calls.items():
        with pytest.raises(fl_ppseg.InputError) as caught:
            call()
        assert said in str(caught.value) and "\n" not in str(caught.value), caught.value


def test_encrypting_for_a_plain_model_is_refused_and_a_client_shows_it_plain(run: Path) -> None:
    model = fl_ppseg.load(run / "plain")
    with pytest.raises(fl_ppseg.InputError, match="nothing would be encrypted"):
        fl_ppseg.encrypt(PHOTO, model.spec)
    assert fl_ppseg.Client(model).segment(PHOTO).labels.shape == (45, 70)
    with pytest.raises(fl_ppseg.InputError, match="leave it out"):
        fl_ppseg.Client(model, SubKey.generate())


def test_a_spec_of_another_version_of_its_cipher_is_refused(run: Path) -> None:
    spec = fl_ppseg.load(run / "per-image-invariant").spec
    other = spec.model_copy(update={"versions": {**spec.versions, "negative-positive": 1}})
    with pytest.raises(fl_ppseg.InputError, match="version 1 of negative-positive"):
        fl_ppseg.encrypt(PHOTO, other)


# One's own training loop.


def test_an_arm_is_trained_in_a_loop_of_ones_own() -> None:
    arm, size = "per-image-invariant", (32, 64)
    model = fl_ppseg.create_model(arm, num_classes=19, image_size=size)
    spec = fl_ppseg.query_spec(arm, image_size=size, block_size=model.patch_size)
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    labels = torch.zeros(2, *size, dtype=torch.long)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-3), []
    for _ in range(3):
        scores = model(fl_ppseg.to_input(fl_ppseg.encrypt_batch(images, spec))).main
        full = F.interpolate(scores, size=size, mode="bilinear")
        loss = F.cross_entropy(full, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    mine = fl_ppseg.Segmenter(model, spec, fl_ppseg.load_class_table("cityscapes"), "mine")
    assert mine.segment(fl_ppseg.encrypt(PHOTO, spec)).labels.shape == (45, 70)


def test_a_model_of_an_arm_has_the_weights_that_the_arm_starts_with() -> None:
    model = fl_ppseg.create_model("per-image", image_size=(64, 128))
    shipped = load_file(shipped_weights("shuffled"))
    state = model.state_dict()
    assert all(torch.equal(state[name], value.float()) for name, value in shipped.items())
    with pytest.raises(fl_ppseg.InputError, match="unknown arm"):
        fl_ppseg.create_model("per-imgae", image_size=(64, 128))
    with pytest.raises(fl_ppseg.InputError, match="no_such"):
        fl_ppseg.create_model("plain", image_size=(64, 128), no_such=1)


def test_encrypting_a_batch_changes_every_image_under_a_key_of_its_own() -> None:
    spec = fl_ppseg.query_spec("per-image", image_size=(32, 64))
    images = np.repeat(PHOTO[:32, :64].transpose(2, 0, 1)[None], 2, axis=0)
    first, second = fl_ppseg.encrypt_batch(images, spec)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(np.sort(first.ravel()), np.sort(images[0].ravel()))
    with pytest.raises(fl_ppseg.InputError, match="plain images"):
        fl_ppseg.encrypt_batch(images, fl_ppseg.query_spec("plain", image_size=(32, 64)))
