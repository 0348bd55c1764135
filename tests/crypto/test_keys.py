"""Keys: derivation against an independent reading of the specification, and misuse that fails."""

import copy
import errno
import json
import os
import pickle
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cipher_specification
import pytest

from fl_ppseg.crypto.keys import ClientKey, SubKey, new_salt
from fl_ppseg.system.errors import InputError

SECRET = bytes(range(100, 132))
SALT = bytes(range(16))
VECTORS: dict[str, Any] = json.loads(
    (cipher_specification.VECTORS / "keys.json").read_text("utf-8")
)
KINDS = pytest.mark.parametrize("kind", [ClientKey, SubKey])


def view_subkey(key: ClientKey, **changes: Any) -> SubKey:
    view: dict[str, Any] = dict(part="train", city="aachen", file="f", view=0, salt=SALT)
    return key.view_subkey(**view | changes)


def holds_secret(text: str | bytes) -> bool:
    data = text if isinstance(text, bytes) else text.encode()
    return any(
        form in data.lower() for form in (SECRET, SECRET.hex().encode(), repr(SECRET)[2:9].encode())
    )


# The reference itself, against the numbers of the RFCs.


def test_reference_hkdf_is_rfc_5869() -> None:
    pseudo_random_key = cipher_specification.hkdf_extract(bytes(range(13)), b"\x0b" * 22)
    output = cipher_specification.hkdf_expand(pseudo_random_key, bytes(range(0xF0, 0xFA)), 42)
    assert output.hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )


def test_reference_chacha20_is_rfc_8439() -> None:
    nonce = bytes.fromhex("000000090000004a00000000")
    assert cipher_specification.chacha20_block(bytes(range(32)), 1, nonce).hex() == (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )


def test_vector_file_is_what_the_reference_makes() -> None:
    assert cipher_specification.key_vectors() == VECTORS


# Derivation.


@pytest.mark.parametrize("vector", VECTORS["views"])
def test_view_subkey_equals_the_vector(vector: dict[str, Any]) -> None:
    key = ClientKey.from_bytes(bytes.fromhex(vector["key"]))
    subkey = key.view_subkey(
        part=vector["part"],
        city=vector["city"],
        file=vector["file"],
        view=vector["view"],
        salt=bytes.fromhex(vector["salt"]),
    )
    assert subkey == SubKey.from_bytes(bytes.fromhex(vector["subkey"]))


def test_any_changed_field_gives_another_subkey() -> None:
    """Part, city, file, view, salt and key all count, and no field runs into its neighbour."""
    subkeys = [vector["subkey"] for vector in VECTORS["views"] + VECTORS["clients"]]
    assert len(set(subkeys)) == len(subkeys) == 13


@pytest.mark.parametrize("vector", VECTORS["clients"])
def test_client_subkey_equals_the_vector(vector: dict[str, str]) -> None:
    key = ClientKey.from_bytes(bytes.fromhex(vector["key"]))
    subkey = key.client_subkey(bytes.fromhex(vector["salt"]))
    assert subkey == SubKey.from_bytes(bytes.fromhex(vector["subkey"]))


@pytest.mark.parametrize("vector", VECTORS["streams"])
@pytest.mark.parametrize("num_bytes", [0, 1, 64, 150])
def test_stream_equals_the_vector(vector: dict[str, str], num_bytes: int) -> None:
    subkey = SubKey.from_bytes(bytes.fromhex(vector["subkey"]))
    expected = bytes.fromhex(vector["bytes"])[:num_bytes]
    assert subkey.stream(vector["label"].encode(), num_bytes) == expected


@pytest.mark.parametrize("start", [0, 64, 128, 65536, 65536 * 3 + 64])
@pytest.mark.parametrize("num_bytes", [0, 1, 64, 200_000])
def test_a_stream_can_be_read_from_the_start_of_any_of_its_blocks(
    start: int, num_bytes: int
) -> None:
    subkey = SubKey.from_bytes(SECRET)
    whole = subkey.stream(b"label", 400_000)
    assert subkey.stream(b"label", num_bytes, start) == whole[start : start + num_bytes]


@pytest.mark.parametrize("start", [1, 63, 65, -1])
def test_a_stream_is_read_from_nowhere_else(start: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 64 bytes on, got {start}"):
        SubKey.from_bytes(SECRET).stream(b"label", 64, start)


@pytest.mark.parametrize("vector", VECTORS["fingerprints"])
def test_fingerprint_equals_the_vector(vector: dict[str, str]) -> None:
    kind = {"ClientKey": ClientKey, "SubKey": SubKey}[vector["class"]]
    assert kind.from_bytes(bytes.fromhex(vector["key"])).fingerprint == vector["fingerprint"]


def test_file_names_that_are_no_utf_8_are_told_apart() -> None:
    key = ClientKey.from_bytes(SECRET)
    names = [os.fsdecode(name) for name in (b"\xff", b"\xfe", "ÿ".encode())]
    fingerprints = {view_subkey(key, file=name).fingerprint for name in names}
    assert len(fingerprints) == 3


@pytest.mark.parametrize("salt", [b"", SALT[:15], SALT + b"\0"])
def test_salt_of_another_length_is_refused(salt: bytes) -> None:
    key = ClientKey.from_bytes(SECRET)
    with pytest.raises(InputError, match=f"expected a salt of 16 bytes, got {len(salt)}"):
        view_subkey(key, salt=salt)
    with pytest.raises(InputError, match="expected a salt of 16"):
        key.client_subkey(salt)


def test_negative_view_is_refused() -> None:
    with pytest.raises(InputError, match="view index -1"):
        view_subkey(ClientKey.from_bytes(SECRET), view=-1)


@pytest.mark.parametrize("part", ["val", "", "Train", "held-out"])
def test_what_is_no_part_of_a_shard_gets_no_key(part: str) -> None:
    with pytest.raises(ValueError, match=r"expected one of \('train', 'heldout'\)"):
        view_subkey(ClientKey.from_bytes(SECRET), part=part)


def test_bytes_of_a_name_that_are_no_utf_8_are_encoded_as_the_document_says() -> None:
    salt, city = bytes(16), os.fsdecode(b"z\xfcrich")
    subkey = view_subkey(ClientKey.from_bytes(SECRET), city=city, salt=salt)
    expected = cipher_specification.view_subkey(SECRET, "train", city, "f", 0, salt)
    assert subkey == SubKey.from_bytes(expected)


def test_salts_and_keys_do_not_repeat() -> None:
    assert len({new_salt() for _ in range(100)}) == 100
    assert all(len(new_salt()) == 16 for _ in range(3))
    assert len({SubKey.generate().fingerprint for _ in range(100)}) == 100
    assert ClientKey.generate() != ClientKey.generate()


@KINDS
def test_every_bit_of_a_new_key_is_the_operating_systems(
    kind: type[ClientKey | SubKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {16: SALT, 32: SECRET}
    monkeypatch.setattr(os, "urandom", given.__getitem__)
    assert new_salt() == SALT
    assert kind.generate() == kind.from_bytes(SECRET)


def test_two_processes_make_different_keys() -> None:
    program = "from fl_ppseg.crypto.keys import SubKey; print(SubKey.generate().fingerprint)"
    found = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert found[0].stdout != found[1].stdout


# Misuse.


@KINDS
@pytest.mark.parametrize("num_bytes", [0, 16, 31, 33, 64])
def test_key_of_another_length_is_refused(kind: type[ClientKey | SubKey], num_bytes: int) -> None:
    with pytest.raises(InputError, match=f"expected exactly 32 bytes, got {num_bytes}"):
        kind.from_bytes(SECRET[:1] * num_bytes)


@KINDS
@pytest.mark.parametrize("secret", [32, "a" * 32, None, list(range(32)), bytearray(32)])
def test_key_is_made_from_bytes_only(kind: type[ClientKey | SubKey], secret: Any) -> None:
    with pytest.raises(TypeError, match="made from bytes"):
        kind.from_bytes(secret)


@KINDS
@pytest.mark.parametrize(
    "misuse",
    [
        *(lambda key, protocol=p: pickle.dumps(key, protocol) for p in range(6)),
        lambda key: pickle.dumps({"round": 1, "key": [key]}),
        copy.copy,
        copy.deepcopy,
        lambda key: copy.deepcopy({"key": key}),
        hash,
        lambda key: {key: 1},
        json.dumps,
        bytes,
        list,
        vars,
        lambda key: key.__reduce__(),
        lambda key: key.__getstate__(),
        lambda key: f"{key:>80}",
    ],
)
def test_key_cannot_leave(
    kind: type[ClientKey | SubKey], misuse: Callable[[object], object]
) -> None:
    key = kind.from_bytes(SECRET)
    with pytest.raises(TypeError) as caught:
        misuse(key)
    assert not holds_secret("".join(traceback.format_exception(caught.value)))


def test_key_cannot_leave_by_cloudpickle() -> None:
    """What Ray sends to its workers goes through cloudpickle, closures included."""
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    key = ClientKey.from_bytes(SECRET)
    with pytest.raises(TypeError, match="cannot be pickled"):
        cloudpickle.dumps(lambda: key)


@KINDS
def test_text_of_a_key_is_its_fingerprint(kind: type[ClientKey | SubKey]) -> None:
    key = kind.from_bytes(SECRET)
    expected = f"{kind.__name__}(fingerprint={key.fingerprint})"
    texts = [repr(key), str(key), f"{key}", f"{key!r}", f"{key}", format(key), "%s" % key]  # noqa: UP031
    assert set(texts) == {expected}
    assert len(key.fingerprint) == 16
    assert not any(holds_secret(text) for text in [*texts, repr([key]), repr({"key": key})])


@KINDS
def test_equality_is_of_bytes_and_class(kind: type[ClientKey | SubKey]) -> None:
    other_kind = SubKey if kind is ClientKey else ClientKey
    key = kind.from_bytes(SECRET)
    assert key == kind.from_bytes(bytes(SECRET))
    assert key != kind.from_bytes(SECRET[:-1] + b"\0")
    assert key != other_kind.from_bytes(SECRET)
    assert key != SECRET


# Files.


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "aachen.key"


def refusal(action: Callable[[], object]) -> str:
    """Return the one line with which the action is refused, after looking for the key in it."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert not holds_secret("".join(traceback.format_exception(caught.value)))
    return message


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_saved_key_is_private_and_comes_back(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        ClientKey.from_bytes(SECRET).save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ClientKey.load(path) == ClientKey.from_bytes(SECRET)


def test_saved_file_has_the_specified_lines(path: Path) -> None:
    ClientKey.from_bytes(SECRET).save(path)
    fingerprint = cipher_specification.fingerprint("ClientKey", SECRET)
    assert path.read_text() == f"fl_ppseg/v1/client-key\n{SECRET.hex()}\n{fingerprint}\n"


def test_key_file_is_never_overwritten(path: Path) -> None:
    ClientKey.from_bytes(SECRET).save(path)
    before = path.read_bytes()
    assert "never overwritten" in refusal(lambda: ClientKey.generate().save(path))
    assert path.read_bytes() == before


def test_key_is_not_written_through_a_link(path: Path) -> None:
    target = path.with_suffix(".target")
    path.symlink_to(target)
    assert "never overwritten" in refusal(lambda: ClientKey.generate().save(path))
    assert not target.exists()


@pytest.mark.parametrize("nameless", [True, False])
def test_full_disk_leaves_no_half_key(
    path: Path, nameless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in refusal(lambda: ClientKey.from_bytes(SECRET).save(path))
    assert list(path.parent.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_file_of_another_user_is_refused(path: Path) -> None:
    """As ssh and gpg do: who owns the file knows the key, or put it there."""
    ClientKey.from_bytes(SECRET).save(path)
    os.chown(path, 65534, 65534)
    assert "belongs to another user (uid 65534" in refusal(lambda: ClientKey.load(path))
    link = path.with_name("link")
    link.symlink_to(path)
    assert "belongs to another user" in refusal(lambda: ClientKey.load(link))


def test_a_pipe_in_the_place_of_a_key_file_does_not_wait_for_ever(path: Path) -> None:
    os.mkfifo(path, 0o600)
    assert "got 0; restore" in refusal(lambda: ClientKey.load(path))


def test_key_in_a_missing_folder_is_refused(path: Path) -> None:
    missing = path / "missing.key"
    assert "cannot be made" in refusal(lambda: ClientKey.from_bytes(SECRET).save(missing))
    assert "cannot be read" in refusal(lambda: ClientKey.load(missing))
    assert "cannot be read" in refusal(lambda: ClientKey.load(path.parent))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o610, 0o601, 0o666])
def test_key_file_open_to_others_is_refused(path: Path, mode: int) -> None:
    ClientKey.from_bytes(SECRET).save(path)
    path.chmod(mode)
    assert f"(expected mode 0600, got {mode:04o})" in refusal(lambda: ClientKey.load(path))


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_private_key_file_is_read(path: Path, mode: int) -> None:
    ClientKey.from_bytes(SECRET).save(path)
    path.chmod(mode)
    assert ClientKey.load(path) == ClientKey.from_bytes(SECRET)


def test_key_file_of_another_length_is_refused(path: Path) -> None:
    ClientKey.from_bytes(SECRET).save(path)
    whole = path.read_bytes()
    for content in (b"", SECRET, whole[:-1], whole + b"\n", whole * 2):
        path.write_bytes(content)
        assert f"expected {len(whole)}" in refusal(lambda: ClientKey.load(path))


def test_every_changed_byte_of_a_key_file_is_noticed(path: Path) -> None:
    ClientKey.from_bytes(SECRET).save(path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for change in (1, 0x20, 0x80):  # 0x20 turns the case of a letter, 0x80 leaves ASCII
            path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
            assert "damaged" in refusal(lambda: ClientKey.load(path))


# Imports.


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("fl_ppseg.crypto.keys", ["numpy", "torch", "flwr"]),
        ("fl_ppseg.crypto.ciphers.encryption", ["torch", "flwr"]),
    ],
)
def test_keys_and_ciphers_run_where_little_is_installed(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print([n for n in {absent} if n in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
