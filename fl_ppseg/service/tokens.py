"""Bearer tokens: which ones are taken, by a private file of their SHA-256 digests.

A line of the file is the digest of one token in 64 hex digits; lines may be empty, or comments that
begin with `#`. The file holds no token, so whoever reads it cannot use the service.
"""

import hashlib
import hmac
import os
import re
import stat
from http import HTTPStatus
from pathlib import Path
from typing import Final

from fastapi import HTTPException, Request
from fastapi.security import HTTPBearer

from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError

MAX_BYTES: Final = 2**16
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Tokens(HTTPBearer):
    """Checks that a request carries one of the tokens."""

    def __init__(self, digests: frozenset[bytes]) -> None:
        super().__init__(auto_error=False, description="A token that the operator gave you.")
        self._digests = digests

    async def __call__(self, request: Request) -> None:
        """Let a request pass, or refuse it.

        Raises:
            HTTPException: 401; it carries none of the tokens.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(token.strip().encode("latin-1")).digest()
        # All are compared, each in a time that does not depend on where they differ.
        is_known = sum(hmac.compare_digest(digest, each) for each in self._digests) > 0
        if scheme.lower() != "bearer" or not is_known:
            raise HTTPException(
                HTTPStatus.UNAUTHORIZED,
                "expected a token of this service: Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )


def load_tokens(path: Path) -> Tokens:
    """The tokens that a file lists.

    Raises:
        InputError: It cannot be read, is open to others, or holds something else than digests.
    """
    try:
        with Directory.open(path.parent) as folder:
            content = folder.read(path.name, MAX_BYTES, own=True)
            found = folder.find(path.name)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({os.strerror(error.errno or 0)})") from None
    if (
        found is None or stat.S_IMODE(found.status.st_mode) & 0o007
    ):  # what systemd hands over is its group's too
        raise InputError(f"{path}: others may read it; chmod 600 {path}")
    lines = [line.strip() for line in content.decode("ascii", "replace").splitlines()]
    digests = [line for line in lines if line and not line.startswith("#")]
    for number, line in enumerate(lines, 1):
        if line in digests and not _DIGEST.fullmatch(line):
            raise InputError(f"{path}: line {number} is no SHA-256 digest in 64 hex digits")
    if not digests:
        raise InputError(f"{path}: lists no token; a line is the SHA-256 digest of one")
    return Tokens(frozenset(map(bytes.fromhex, digests)))
