"""The attacker's network on show: kept by the audit, loaded by the service, blind to keys."""

from pathlib import Path

import numpy as np
import pytest
import small_service
from audit_streets import BLOCK, streets
from safetensors.numpy import load_file, save_file

from fl_ppseg.audit.attacks.reader import Budget, seen_of, to_bytes, train
from fl_ppseg.audit.attacks.reader_file import About, SavedReader, read_reader, write_reader
from fl_ppseg.audit.attacks.starts import steps_before
from fl_ppseg.audit.command import main
from fl_ppseg.inference.query_spec import QuerySpec
from fl_ppseg.service.reconstruction import load_attack
from fl_ppseg.system.errors import InputError

SPEC = small_service.SPEC
FORM = "pixel-magnitudes"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SavedReader]:
    """A network that was hardly trained, and its file."""
    public, _ = streets(8, 0)
    size = (public.shape[2], public.shape[3])

    def read(planes: np.ndarray):  # type: ignore[no-untyped-def]
        return seen_of(planes, FORM, BLOCK, raw=False)

    about = About(
        cipher=SPEC.cipher, form=FORM, block_size=BLOCK, image_size=size, num_public=8, steps=2
    )
    found = SavedReader(train(public, read, BLOCK, budget=Budget(2)), about)
    path = tmp_path_factory.mktemp("attack") / "attack.safetensors"
    write_reader(path, found)
    return path, found


def spec_of(saved: SavedReader) -> QuerySpec:
    about = saved.about
    changes = {"block_size": about.block_size, "image_size": about.image_size}
    return SPEC.model_copy(update=changes)


def test_a_kept_network_restores_as_it_did(saved: tuple[Path, SavedReader]) -> None:
    path, (reader, about) = saved
    images, _ = streets(1, 3)
    expected = to_bytes(reader(seen_of(images, FORM, BLOCK, raw=False)).detach())[0].astype(int)
    found = load_attack(path, spec_of(saved[1]))(images[0])
    assert np.abs(found - expected).max() <= 2  # weights are kept in half precision
    assert read_reader(path).about == about
    assert path.stat().st_size < 2.5e6


def test_it_restores_the_same_whatever_the_key(saved: tuple[Path, SavedReader]) -> None:
    path, found = saved
    spec, attack = spec_of(found), load_attack(path, spec_of(found))
    one, other = (small_service.query(spec.image_size, spec) for _ in range(2))
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(attack(one), attack(other))


def test_larger_queries_are_restored_window_by_window(saved: tuple[Path, SavedReader]) -> None:
    path, found = saved
    spec, attack = spec_of(found), load_attack(path, spec_of(found))
    height, width = spec.image_size
    query = small_service.query((height + spec.block_size, 2 * width), spec)
    restored = attack(query)
    assert restored.shape == query.shape
    np.testing.assert_array_equal(
        restored[:, -height:, :width], attack(query[:, -height:, :width].copy())
    )
    np.testing.assert_array_equal(
        restored[:, : spec.block_size, width:],
        attack(query[:, :height, width:])[:, : spec.block_size],
    )


@pytest.mark.parametrize(
    "changes", [{"cipher": "shuffle"}, {"block_size": 2}, {"image_size": (64, 256)}]
)
def test_a_network_for_another_model_is_refused(
    saved: tuple[Path, SavedReader], changes: dict[str, object]
) -> None:
    path, found = saved
    with pytest.raises(InputError, match="expected a network for"):
        load_attack(path, spec_of(found).model_copy(update=changes))


def test_files_that_are_no_such_network_are_refused_in_one_line(
    saved: tuple[Path, SavedReader], tmp_path: Path
) -> None:
    path, (_, about) = saved
    tensors = load_file(path)
    some = dict(list(tensors.items())[1:])
    huge = about.model_copy(update={"image_size": (8192, 8192)})
    odd = about.model_copy(update={"image_size": (about.image_size[0] + 1, about.image_size[1])})
    broken = tmp_path / "a.safetensors"
    for content, told, why in (
        (tensors, {}, "--save-network"),
        (some, {"survivor-network": about.model_dump_json()}, "its tensors are not"),
        (tensors, {"survivor-network": huge.model_dump_json()}, "its tensors are not"),
        (tensors, {"survivor-network": odd.model_dump_json()}, "in blocks of"),
        (tensors, {"survivor-network": "{}"}, "cipher"),
        (tensors, {"survivor-network": "{"}, "a.safetensors"),
    ):
        save_file(content, broken, told)
        with pytest.raises(InputError, match=why) as caught:
            read_reader(broken)
        assert "\n" not in str(caught.value)
    broken.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError):
        read_reader(broken)
    with pytest.raises(InputError, match="cannot be read"):
        read_reader(tmp_path / "none.safetensors")


TINY = ["--set", "data.image_size=[16,32]", "--set", "data.scene_size=[32,64]",
        "--set", "data.num_train=60", "--set", "data.num_val=6"]  # fmt: skip


def test_the_audit_trains_one_for_a_cipher(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "attack.safetensors"
    command = ["--cipher", "shuffle", "--quick", "--save-network", str(path), *TINY]
    assert main(command) == 0
    assert "serve --attack" in capsys.readouterr().out
    about = read_reader(path).about
    assert (about.cipher, about.form, about.block_size) == ("shuffle", "values", 8)
    assert about.image_size == (16, 32) and about.steps == steps_before("values", 8) + 40
    with pytest.raises(InputError, match="exists already"):
        main(command)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--cipher", "ffx"], "leaves no canonical form"),
        (["--arms", "plain"], "encrypts nothing"),
        (["--arms", "per-image,per-client"], "expected one arm, got 2"),
        (["--cipher", "shuffle", "--pictures"], "drop --pictures"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_drawn(
    tmp_path: Path, options: list[str], why: str
) -> None:
    path = tmp_path / "attack.safetensors"
    with pytest.raises(InputError, match=why):
        main([*options, "--save-network", str(path)])
    assert not path.exists()
