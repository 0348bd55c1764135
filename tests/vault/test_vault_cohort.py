"""An owner's consent to secure aggregation: with whom, how many, and the key that its node gets."""

import re
import stat
from pathlib import Path
from typing import Any

import pytest
from small_owner import ASKED, PASSPHRASE, Owner, fails

from clients.policy.cohort_key import COHORT_KEY, read_cohort_key
from fl_ppseg.secure_sum.node_secret import NodeSecret

SUMMED = {"num_rounds": 2, "last_rounds": 1, "secure_aggregation": True}
OTHERS = {name: NodeSecret(bytes([n] * 32)).public_key for n, name in enumerate("xyz", 1)}


@pytest.fixture
def owner(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Owner:
    owner = Owner(scenes, tmp_path, capsys)
    owner.configure(arms=["per-image"], federation=SUMMED)
    assert owner.keys("new")[0] == 0
    return owner


def cohort(owner: Owner, **keys: str) -> Path:
    """The file of keys, with the line that the owner's own vault prints."""
    status, line, error = owner.keys("cohort")
    assert status == 0, error
    own = dict([line.strip().split(": ")])
    path = owner.place / "cohort.yaml"
    path.write_text("".join(f"{k}: {v}\n" for k, v in {**own, **OTHERS, **keys}.items()))
    return path


def test_the_node_gets_what_its_owner_consented_to(owner: Owner) -> None:
    file = cohort(owner)
    status, _, error = owner.encrypt("--cohort", file)
    assert status == 0, error
    found = owner.policy.cohort
    assert found is not None
    assert found.keys.keys() == {"aachen", "x", "y", "z"}
    assert (found.least, found.bound) == (3, None)
    assert found.key == owner.node / COHORT_KEY
    assert read_cohort_key(found.key).public_key == found.keys["aachen"]
    for place in (owner.vault, owner.node):
        assert stat.S_IMODE((place / COHORT_KEY).stat().st_mode) == 0o600
    secret = read_cohort_key(found.key).to_hex()
    assert secret not in (owner.node / "policy.yaml").read_text()
    status, out, _ = owner.call("verify", "--node", owner.node, "--vault", owner.vaults)
    assert status == 0
    assert "cohort.key: cohort key, public half matches" in out


def test_the_agreement_shows_each_key_and_the_least_cohort(owner: Owner) -> None:
    file = cohort(owner)
    _, text, error = owner.keys("encrypt", *owner.encrypt_options(), "--cohort", file)
    assert "sums over at least 3 of these 4 clients, and no single update" in text
    assert all(f"      {client}: {key}" in text for client, key in OTHERS.items())
    asked = ASKED.search(error)
    file.write_text(file.read_text().replace(OTHERS["z"], "ab" * 32))
    assert asked is not None
    named = (*owner.encrypt_options(), "--cohort", file, *asked[0].split())
    fails(owner.keys("encrypt", *named), "it is another agreement now")


def test_the_cohort_key_is_made_once(owner: Owner) -> None:
    first = owner.keys("cohort")[1]
    assert re.fullmatch(r"aachen: [0-9a-f]{64}\n", first)
    assert owner.keys("cohort")[1] == first
    assert owner.keys("rotate")[0] == 0
    assert owner.keys("cohort")[1] == first


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"aachen": "ab" * 32}, "expected your own line, aachen: "),
        ({"x": OTHERS["y"]}, "two clients have the same cohort key"),
        ({"x": "short"}, "keys.x: String should match pattern"),
    ],
)
def test_a_wrong_file_is_refused(owner: Owner, keys: dict[str, str], reason: str) -> None:
    fails(owner.encrypt("--cohort", cohort(owner, **keys)), reason)


def test_a_missing_or_needless_file_is_refused(owner: Owner) -> None:
    fails(owner.encrypt(), "needs a cohort key of yours; make one with `python -m clients.vault")
    file = cohort(owner)
    fails(owner.encrypt(), "needs --cohort FILE")
    owner.configure(arms=["per-image"])
    fails(owner.encrypt("--cohort", file), "the config has no federation.secure_aggregation")


def test_too_few_clients_are_refused(owner: Owner) -> None:
    owner.configure(arms=["per-image"], federation={**SUMMED, "least_cohort": 3})
    file = cohort(owner)
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    fails(owner.encrypt("--cohort", file), "keys of at least 3 clients")


@pytest.mark.parametrize(
    ("floor", "federation", "reason"),
    [
        ({"secure_aggregation": True}, {}, "your floor has secure_aggregation: true"),
        ({"least_cohort": 4}, SUMMED, "your floor has least_cohort: 4"),
    ],
)
def test_no_config_goes_below_the_floor(
    owner: Owner, floor: dict[str, Any], federation: dict[str, Any], reason: str
) -> None:
    owner.lower_floor(**floor)
    file = cohort(owner)
    owner.configure(arms=["per-image"], federation=federation)
    options = ("--cohort", file) if federation else ()
    fails(owner.encrypt(*options), reason)


def test_arms_agreed_to_as_sums_do_not_become_single_updates(owner: Owner) -> None:
    assert owner.encrypt("--cohort", cohort(owner))[0] == 0
    owner.configure(arms=["per-client-private"])
    fails(owner.encrypt(), "holds per-image, agreed to with another cohort")
    owner.configure(arms=["per-image"])  # the same arm, agreed to anew
    assert owner.encrypt()[0] == 0
    assert owner.policy.cohort is None
    assert not (owner.node / COHORT_KEY).exists()


def test_a_withdrawal_takes_the_key_along(owner: Owner) -> None:
    assert owner.encrypt("--cohort", cohort(owner))[0] == 0
    assert owner.keys("withdraw", "--node", owner.node)[0] == 0
    assert owner.policy.cohort is None
    assert not (owner.node / COHORT_KEY).exists()


def test_a_backup_holds_the_key(owner: Owner) -> None:
    line = owner.keys("cohort")[1]
    backup = owner.place / "backup"
    passphrase = ("--passphrase-file", owner.passphrase)
    assert PASSPHRASE
    assert owner.keys("backup", "--to", backup, *passphrase)[0] == 0
    named = ("--vault", owner.place / "other", "--client", "aachen", "--from", backup)
    assert owner.call("restore", *named, *passphrase)[0] == 0
    assert owner.call("cohort", "--vault", owner.place / "other", "--client", "aachen")[1] == line


def test_a_damaged_key_is_refused(owner: Owner) -> None:
    owner.keys("cohort")
    path = owner.vault / COHORT_KEY
    text = path.read_text()
    path.write_text(text.replace(text[30], "0" if text[30] != "0" else "1"))
    fails(owner.keys("cohort"), "damaged cohort key")
    path.write_text(text)
    path.chmod(0o644)
    fails(owner.keys("cohort"), "others may read this cohort key")
