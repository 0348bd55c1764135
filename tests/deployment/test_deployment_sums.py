"""Secure aggregation over real processes: all steps of a round that loses a client among them."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_federation as small
from deployed import Federated, deployed

from clients.policy.node_policy import load_policy, save_policy
from clients.policy.pledges import PLEDGES
from fl_ppseg.federation.cohort_keys import load_cohort_keys
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.scenes.tree import synthesize

TRAIN, VAL = ("aachen", "bochum", "bremen"), ("lindau",)
SUMS = {
    "secure_aggregation": True,
    "least_cohort": 2,
    "max_retries": 0,
    "num_rounds": 1,
    "last_rounds": 1,
}
"""One round: each message starts an app, which loads PyTorch."""

pytestmark = [
    pytest.mark.federated,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy (apt-get install)"),
]


@pytest.fixture(scope="module")
def federated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federated]:
    folder = tmp_path_factory.mktemp("summed")
    sizes = (dict.fromkeys(TRAIN, 4), {"lindau": 2})
    synthesize(folder / "tree", num_train=12, num_val=2, size=(32, 64), cities=sizes)
    config = small.config(folder / "tree", arms=["plain"], federation=SUMS)
    with deployed(folder, config, TRAIN, VAL) as made:
        yield made


def test_a_round_goes_on_without_a_client_that_is_lost_after_it_dealt_shares(
    federated: Federated,
) -> None:
    keys = lose_start_weights(federated, "bremen")
    cohort = federated.folder / "cohort.yaml"
    cohort.write_text("".join(f"{client}: {key}\n" for client, key in keys.items()))
    done = federated.train("--cohort", cohort)
    assert done.returncode == 0, done.stderr
    folder = RunFolder(federated.folder / "run")
    assert load_cohort_keys(folder.path) == keys
    assert folder.clients_summed("plain", 0, 1) == {"aachen", "bochum"}
    lines = [line for line in folder.lines() if line["round"] == 1]
    assert {x["client"] for x in lines if x["role"] == "train"} == {"aachen", "bochum"}
    (own,) = (x for x in lines if x["role"] == "round")
    assert own["rejected"][0] == "bremen: the node failed with InputError; see its own log"
    assert own["bytes_down"] > own["bytes_up"] > 0  # keys, shares, signatures, released shares
    found = folder.latest("plain", 0)
    assert found is not None and found.round == 1
    steps = {client: pledged(federated, client) for client in TRAIN}
    assert steps["aachen"] == steps["bochum"] == ["share", "members", "train", "survivors"]
    assert steps["bremen"] == ["share"]


def lose_start_weights(federated: Federated, client: str) -> dict[str, str]:
    """A node without the weights of round 0 can advertise and deal, and refuses to train.

    Returns:
        The cohort keys, as its owner consented to them.
    """
    path = federated.policies[client]
    policy = load_policy(path)
    assert policy.cohort is not None
    lost = federated.folder / "lost" / ("0" * 64)
    arm = policy.arms["plain"].model_copy(update={"start": {0: lost}})
    save_policy(policy.model_copy(update={"arms": {"plain": arm}}), path)
    return dict(policy.cohort.keys)


def pledged(federated: Federated, client: str) -> list[str]:
    """The steps in which a client's node has bound itself, in their order."""
    (path,) = (Path(federated.folder) / client).rglob(PLEDGES)
    lines = path.read_text("utf-8").splitlines()[1:]  # the first one has the salt
    return [json.loads(line)["step"] for line in lines]
