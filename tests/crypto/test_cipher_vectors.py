"""Every cipher and some products against vectors of an independent reading of their docstrings."""

import hashlib
import json
from typing import Any

import cipher_specification
import numpy as np
import pytest

from fl_ppseg.config.cipher_versions import VERSIONS
from fl_ppseg.crypto.ciphers.cipher import SCOPES
from fl_ppseg.crypto.ciphers.encryption import decrypt, encrypt
from fl_ppseg.crypto.ciphers.registry import CIPHERS
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import to_blocks

FILE: dict[str, Any] = json.loads(
    (cipher_specification.VECTORS / "ciphers.json").read_text("utf-8")
)
CASES: list[dict[str, Any]] = FILE["cases"]


def label(case: dict[str, Any]) -> str:
    return f"{case['cipher']}-{case['block_size']}-{case['scope']}"


def test_the_vector_file_is_what_the_specification_makes() -> None:
    assert json.loads(json.dumps(cipher_specification.cipher_vectors())) == FILE


def test_every_cipher_has_the_version_of_the_specification_that_was_read() -> None:
    assert FILE["versions"] == VERSIONS
    assert VERSIONS.keys() == CIPHERS.keys()


def test_every_cipher_has_vectors_of_both_scopes() -> None:
    found = {(case["cipher"], case["scope"]) for case in CASES}
    assert found >= {(name, scope) for name in CIPHERS for scope in SCOPES}


@pytest.mark.parametrize("case", CASES, ids=label)
def test_encryption_equals_the_vector(case: dict[str, Any]) -> None:
    size, (grid_h, grid_w) = case["block_size"], case["grid"]
    subkey = SubKey.from_bytes(bytes.fromhex(case["subkey"]))
    c, y, x = np.ogrid[:3, : grid_h * size, : grid_w * size]
    plain = ((7 * c + 3 * y + 5 * x) % 256).astype(np.uint8)
    secret = encrypt(plain, subkey, case["cipher"], block_size=size, scope=case["scope"])
    assert to_blocks(secret, size)[-1, :12].tolist() == case["first_values"]
    assert hashlib.sha256(secret.tobytes()).hexdigest() == case["image_sha256"]
    back = decrypt(secret, subkey, case["cipher"], block_size=size, scope=case["scope"])
    np.testing.assert_array_equal(back, plain)
