"""An owner's keys, which never leave the owner, and the random streams drawn from them.

    ClientKey --HKDF, label + part, city, file, view + salt--> SubKey --ChaCha20, label--> stream

A key is an object, never loose bytes: printing one shows a fingerprint; pickling, copying or
hashing one raises. Python cannot wipe memory, so a dropped key is unreachable, not erased.

Specification, version 1, for whoever implements it again (HKDF is RFC 5869 with SHA-256):
    fields(f1, f2, ...) = for each field its length, 4 bytes, then the field
    sub-key of a view   = HKDF(key, salt=view salt, length=32,
                               info=fields("fl_ppseg/v1/view", part, city, file, view index))
    sub-key of a client = HKDF(key, salt=salt, length=32, info=fields("fl_ppseg/v1/client"))
    stream of a sub-key = ChaCha20 (RFC 8439) key stream from block 0, nonce 0, under the key
                          HKDF-Expand(sub-key, info=fields("fl_ppseg/v1/stream", label), length=32)
    fingerprint         = the first 16 hex digits of
                          SHA-256(fields("fl_ppseg/v1/fingerprint", class name, key))
    key file            = three lines: "fl_ppseg/v1/client-key", key in hex, fingerprint
Integers are big-endian (the view index has 8 bytes), text is UTF-8. The fields of a view:
    part        "train" or "heldout": where in the encrypted shard the view lies. It is not the
                split of the tree of images: a held-out image of split train has part "heldout", and
                so have all images of split val
    city        name of the folder that the image lies in, in Unicode's composed form (NFC)
    file        name of the image in that form, without _leftImg8bit.png, .jpg or .jpeg
    view index  number of the view, from 0; a held-out image has view 0 alone
A byte of a name that is not UTF-8 is the surrogate of PEP 383, as UTF-8 would write that code
point.
"""

import hashlib
import os
import stat
from pathlib import Path
from typing import Final, Literal, NoReturn, Self, get_args

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.constant_time import bytes_eq
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from fl_ppseg.system.atomic_file import write_in
from fl_ppseg.system.errors import DISK_FULL, InputError

Part = Literal["train", "heldout"]
"""Where in a shard a view lies."""

KEY_BYTES: Final = 32
SALT_BYTES: Final = 16

_VIEW_LABEL: Final = b"fl_ppseg/v1/view"
_CLIENT_LABEL: Final = b"fl_ppseg/v1/client"
_STREAM_LABEL: Final = b"fl_ppseg/v1/stream"
_FINGERPRINT_LABEL: Final = b"fl_ppseg/v1/fingerprint"
_FILE_HEADER: Final = b"fl_ppseg/v1/client-key"
_STREAM_BLOCK_BYTES: Final = 64  # of ChaCha20
_NONCE: Final = bytes(12)  # zero, for every stream has a key of its own
_ZEROS: Final = bytes(1 << 16)  # encrypted piece by piece, so that input and output stay in cache


def new_salt() -> bytes:
    """Return 16 random bytes from the OS: the salt of one view, kept in the owner's manifest."""
    return os.urandom(SALT_BYTES)


class _Secret:
    """32 secret bytes that cannot be printed, pickled, copied or hashed."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if not isinstance(secret, bytes):
            raise TypeError(
                f"a {type(self).__name__} is made from bytes, not {type(secret).__name__}"
            )
        if len(secret) != KEY_BYTES:
            raise InputError(
                f"{type(self).__name__}: expected exactly {KEY_BYTES} bytes, got {len(secret)}; "
                "give the whole key"
            )
        self._secret = secret

    @classmethod
    def generate(cls) -> Self:
        """Return a new key from the operating system's random source."""
        return cls(os.urandom(KEY_BYTES))

    @classmethod
    def from_bytes(cls, secret: bytes) -> Self:
        """Return the key that has exactly these 32 bytes.

        Raises:
            InputError: there are not exactly 32.
            TypeError: it is not `bytes` (an int would make a key of zeros).
        """
        return cls(secret)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that identify the key in logs; they reveal nothing about its bytes."""
        kind = type(self).__name__.encode()
        return hashlib.sha256(_fields(_FINGERPRINT_LABEL, kind, self._secret)).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(fingerprint={self.fingerprint})"

    def __eq__(self, other: object) -> bool:
        """Compare in constant time; keys of different classes are never equal."""
        if not isinstance(other, _Secret) or type(self) is not type(other):
            return NotImplemented
        return bytes_eq(self._secret, other._secret)

    __hash__ = None  # type: ignore[assignment]  # a key is not a dictionary entry, and not a message field

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse pickle, copy and deepcopy alike: all three come through here."""
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled or copied: it stays where it was made"
        )

    def __reduce__(self) -> NoReturn:
        self.__reduce_ex__(None)

    def __getstate__(self) -> NoReturn:
        self.__reduce_ex__(None)


class SubKey(_Secret):
    """The key of one view, or of what a client's images share: a source of random streams.

    Derived ones come from `ClientKey`; `SubKey.generate()` makes a disposable one, which nobody can
    make again once it is dropped.
    """

    __slots__ = ()

    def stream(self, label: bytes, num_bytes: int, start: int = 0) -> bytearray:
        """Return `num_bytes` bytes, from byte `start` on, of the random stream that `label` names.

        Equal labels give equal streams: each use (a cipher, its step, a redraw) has its own label.

        Raises:
            ValueError: `start` is no multiple of 64.
        """
        first, beyond = divmod(start, _STREAM_BLOCK_BYTES)
        if beyond:
            raise ValueError(f"a stream is read from a multiple of 64 bytes on, got {start}")
        expand = HKDFExpand(SHA256(), KEY_BYTES, info=_fields(_STREAM_LABEL, label))
        key, counter = expand.derive(self._secret), first.to_bytes(4, "little")
        encryptor = Cipher(algorithms.ChaCha20(key, counter + _NONCE), mode=None).encryptor()
        output = bytearray(num_bytes)
        with memoryview(output) as view:
            for begin in range(0, num_bytes, len(_ZEROS)):
                piece = view[begin : begin + len(_ZEROS)]
                encryptor.update_into(_ZEROS[: len(piece)], piece)
        return output


class ClientKey(_Secret):
    """The master key of one owner; every derived key of its images comes from it."""

    __slots__ = ()

    def view_subkey(self, *, part: Part, city: str, file: str, view: int, salt: bytes) -> SubKey:
        """Return the key of one view of one image.

        Args:
            part: of the shard.
            city: e.g. `aachen`: the folder of the image.
            file: name of the image within its city, without suffix.
            view: index of the view, from 0.
            salt: the view's 16 bytes of `new_salt()`, so that no two views ever share a key.

        Raises:
            InputError: the salt is not 16 bytes long, or `view` is negative.
            ValueError: the part is not one of `Part`; `val` is a split, not a part.
        """
        if part not in get_args(Part):
            raise ValueError(f"part {part!r} of a shard, expected one of {get_args(Part)}")
        if view < 0:
            raise InputError(f"view index {view} is negative; count views from 0")
        names = (name.encode("utf-8", "surrogatepass") for name in (part, city, file))
        return self._derive(salt, _fields(_VIEW_LABEL, *names, view.to_bytes(8, "big")))

    def client_subkey(self, salt: bytes) -> SubKey:
        """Return the key that all images of this client share under `salt` (16 bytes).

        Raises:
            InputError: the salt is not 16 bytes long.
        """
        return self._derive(salt, _fields(_CLIENT_LABEL))

    def _derive(self, salt: bytes, info: bytes) -> SubKey:
        if len(salt) != SALT_BYTES:
            raise InputError(
                f"expected a salt of {SALT_BYTES} bytes, got {len(salt)}; take it from the "
                f"owner's manifest"
            )
        return SubKey(HKDF(SHA256(), KEY_BYTES, salt=salt, info=info).derive(self._secret))

    def save(self, path: Path) -> None:
        """Write the key to a new file that only its owner can read (0600).

        The file has its name when all of it is on disk, and a kill before leaves no part of the key
        where the system can do that.

        Raises:
            InputError: the file exists (keys are never overwritten) or cannot be written.
        """
        try:
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                write_in(folder, path.name, self._file_content(), 0o600, exclusive=True)
                os.fsync(folder)
            finally:
                os.close(folder)
        except FileExistsError:
            raise InputError(
                f"key file {path} exists and is never overwritten; choose another path"
            ) from None
        except OSError as error:
            remedy = (
                "free some space and repeat" if error.errno in DISK_FULL else "check its folder"
            )
            raise InputError(
                f"key file {path} cannot be made: {error.strerror}; {remedy}"
            ) from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key that `save` wrote.

        Raises:
            InputError: the file is missing, another user's, readable by others, of the wrong length
                or damaged.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                found = os.fstat(file.fileno())
                content = file.read(_FILE_BYTES + 1) if stat.S_ISREG(found.st_mode) else b""
        except OSError as error:
            raise InputError(
                f"key file {path} cannot be read: {error.strerror}; name the file that was saved"
            ) from None
        _check_closed(path, found)
        return cls.parse(content, str(path))

    def _file_content(self) -> bytes:
        lines = (_FILE_HEADER, self._secret.hex().encode(), self.fingerprint.encode())
        return b"".join(line + b"\n" for line in lines)

    @classmethod
    def parse(cls, content: bytes, place: str) -> Self:
        """The key in the bytes of a key file.

        Args:
            content: All of it.
            place: Where it comes from, for messages.

        Raises:
            InputError: it is of the wrong length or damaged.
        """
        if len(content) != _FILE_BYTES:
            found = f"more than {_FILE_BYTES}" if len(content) > _FILE_BYTES else len(content)
            raise InputError(
                f"key file {place}: expected {_FILE_BYTES} bytes, got {found}; restore its backup"
            )
        try:
            key = cls(bytes.fromhex(content.split(b"\n")[1].decode()))
            intact = bytes_eq(key._file_content(), content)
        except (IndexError, ValueError, InputError):
            intact = False
        if not intact:
            raise InputError(
                f"key file {place} is damaged or not of version "
                f"{_FILE_HEADER.decode()!r}; restore its backup"
            )
        return key


def _check_closed(path: Path, found: os.stat_result) -> None:
    """Check that only its owner can access a key file, as ssh and gpg do."""
    mode, user = stat.S_IMODE(found.st_mode), os.geteuid()
    if found.st_uid != user:
        raise InputError(
            f"key file {path} belongs to another user (uid {found.st_uid}, you are {user}), who "
            "may know the key; work as its owner, or use a key that you made"
        )
    if mode & 0o077:
        raise InputError(
            f"key file {path} is open to others (expected mode 0600, got {mode:04o}); "
            "run chmod 600 on it, and make a new key if somebody may have read it"
        )


def _fields(*fields: bytes) -> bytes:
    """Join fields behind their lengths, so that no two lists of fields give the same bytes."""
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


_FILE_BYTES: Final = len(_FILE_HEADER) + 2 * KEY_BYTES + 16 + 3
