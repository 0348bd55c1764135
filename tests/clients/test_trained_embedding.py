"""Who asks with the embedding that a node trained is answered as that node counts."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_federation as small
import torch

import fl_ppseg
from clients.policy.node_policy import load_policy, policy_path, state_path
from clients.private_state import load_private, save_trained, trained_folder, versions
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.data.shard import open_shard
from fl_ppseg.experiment.preparation import Experiment
from fl_ppseg.federation.messages import unpack_reply
from fl_ppseg.learning.evaluation import confusion_counts
from fl_ppseg.predict.command import main
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.command_line import run as run_command

ARM = "trained"
TABLE = {ARM: builtin_arms()["per-client-private"].model_dump() | {"private_rate": 1.0}}
SGD = {"optimizer": "sgd", "learning_rate": 0.5, "batch_size": 2}
NODES = ("aachen", "bochum")


class Trained:
    """A federation after its last round, and where its nodes keep what is theirs."""

    def __init__(self, experiment: Experiment, recorder: small.Recorder) -> None:
        self.experiment, self.recorder = experiment, recorder
        self.model = fl_ppseg.load(experiment.folder.path / ARM)
        self.vaults = experiment.folder.path.parent / "vaults"

    def state(self, number: int = 0) -> Path:
        return state_path(self.experiment.nodes, number)

    def start(self, number: int = 0) -> Path:
        policy = load_policy(policy_path(self.experiment.nodes, number))
        return (policy.arms[ARM].private or {})[0]

    def versions(self, number: int = 0) -> Path:
        return trained_folder(self.state(number), self.start(number))

    def counted(self, client: str) -> np.ndarray:
        """What a node counted on its held-out images after the last round."""
        last = self.experiment.config.federation.num_rounds
        for request, reply in zip(self.recorder.received, self.recorder.sent, strict=True):
            if request.content.config_records["settings"]["task"] == "evaluate":
                answer = unpack_reply(reply.content, ())
                if (answer.client, answer.round) == (client, last):
                    assert answer.confusion is not None
                    return answer.confusion
        raise AssertionError(client)


@pytest.fixture(scope="module")
def trained(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    settings = small.config(scenes, arms=[ARM], arm_table=TABLE, training=SGD)
    experiment = small.prepared(settings, tmp_path_factory.mktemp("run"))
    recorder = small.Recorder()
    small.federate(experiment, client_app=recorder)
    return Trained(experiment, recorder)


@pytest.fixture
def state(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the state folder of the first node, which a test may damage."""
    return shutil.copytree(trained.state(), tmp_path / "state")


def test_the_owner_s_queries_are_answered_as_its_node_counts(
    trained: Trained, scenes: Path
) -> None:
    classes = load_class_table("cityscapes")
    for number, name in enumerate(NODES):
        images = open_dataset(scenes, classes).split("train")[name]
        heldout = images[-max(1, len(images) // 10) :]
        policy = load_policy(policy_path(trained.experiment.nodes, number))
        encrypted = [image for image, _ in open_shard(policy.arms[ARM].shards[0]).heldout()]
        client = fl_ppseg.vault_client(trained.model, trained.vaults, name, trained.state(number))
        before = fl_ppseg.vault_client(trained.model, trained.vaults, name)
        counts = torch.zeros(len(classes.names), len(classes.names), dtype=torch.int64)
        for scene, stored in zip(heldout, encrypted, strict=True):
            image, labels = scene.load()
            np.testing.assert_array_equal(client.query(image).pixels, np.asarray(stored))
            found, confidence = client.segment(image)
            guess = torch.from_numpy(found)
            counts += confusion_counts(guess, torch.from_numpy(labels), len(classes.names))
            assert np.abs(confidence - before.segment(image).confidence).max() > 1e-3
        np.testing.assert_array_equal(counts.numpy(), trained.counted(name))


def test_a_version_is_found_from_every_folder_around_it(trained: Trained, tmp_path: Path) -> None:
    """And of its versions the one of the model's round, not of a later one."""
    home = tmp_path / "home"
    shutil.copytree(trained.state(), home / "state")
    folder = home / "state" / "private" / trained.start().name
    own = load_private(trained.start(), folder, 2)
    save_trained(folder, 3, {name: value + np.float32(1) for name, value in own.items()})
    assert versions(folder) == [1, 2, 3] and trained.model.about.facts.round == 2
    image = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    places = [home, home / "state", folder.parent, folder, folder / "round_0002.safetensors"]
    answers = [
        fl_ppseg.vault_client(trained.model, trained.vaults, "aachen", place).segment(image)
        for place in (*places, folder / "round_0001.safetensors")
    ]
    for answer in answers[1:5]:
        np.testing.assert_array_equal(answer.confidence, answers[0].confidence)
    assert (answers[5].confidence != answers[0].confidence).any()


def test_what_does_not_belong_is_one_line(trained: Trained, state: Path, tmp_path: Path) -> None:
    (folder,) = (state / "private").iterdir()
    newest = folder / "round_0002.safetensors"
    content, own = newest.read_bytes(), load_private(trained.start(), folder, 2)
    flipped = bytearray(content)
    flipped[-1] ^= 1

    def give(**tensors: np.ndarray) -> None:
        shutil.rmtree(folder)
        weight = EMBEDDING_TENSORS[0]
        save_trained(folder, 2, {**own, weight: tensors["weight"]})

    def link(path: Path) -> None:
        moved = path.rename(tmp_path / f"moved-{path.name}")
        path.symlink_to(moved)

    weight = own[EMBEDDING_TENSORS[0]]
    damages: dict[str, Callable[[], object]] = {
        "its hash differs": lambda: newest.write_bytes(bytes(flipped)),
        "unreadable private embedding": lambda: newest.write_bytes(content[:99]),
        "expected at most": lambda: newest.write_bytes(content + bytes(2**17)),
        "is a link": lambda: link(newest),
        "none is followed": lambda: link(folder),
        "others may write it": lambda: newest.chmod(0o666),
        "could replace what lies in it": lambda: folder.chmod(0o777),
        "several arms or seeds": lambda: shutil.copytree(folder, folder.with_name("0" * 32)),
        "got none": lambda: shutil.rmtree(folder),
        "only of later rounds": lambda: [
            each.rename(folder / f"round_000{5 + number}.safetensors")
            for number, each in enumerate(sorted(folder.glob("*.safetensors")))
        ],
        "belongs to another model": lambda: give(weight=weight[:8]),
        "float64": lambda: give(weight=weight.astype(np.float64)),
        "not finite": lambda: give(weight=weight * np.float32(np.nan)),
        "was not trained from the embedding": lambda: give(weight=weight[..., ::-1].copy()),
    }
    whole = tmp_path / "whole"
    shutil.copytree(state, whole)
    for said, damage in damages.items():
        damage()
        with pytest.raises(fl_ppseg.InputError) as caught:
            fl_ppseg.vault_client(trained.model, trained.vaults, "aachen", state)
        assert said in str(caught.value), caught.value
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
        shutil.rmtree(state)
        shutil.copytree(whole, state)
    fl_ppseg.vault_client(trained.model, trained.vaults, "aachen", state)


def test_another_client_s_embedding_and_other_arms_are_refused(
    trained: Trained, tmp_path: Path
) -> None:
    with pytest.raises(fl_ppseg.InputError, match="under a key of this vault"):
        fl_ppseg.vault_client(trained.model, trained.vaults, "bochum", trained.state())
    with pytest.raises(fl_ppseg.InputError, match="cannot be read"):
        fl_ppseg.vault_client(trained.model, trained.vaults, "aachen", tmp_path / "nowhere")
    with pytest.raises(fl_ppseg.InputError, match="not named as a version"):
        other = tmp_path / "mine.safetensors"
        fl_ppseg.vault_client(trained.model, trained.vaults, "aachen", other)


def test_predict_takes_it(
    trained: Trained, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(out: str, *options: object) -> tuple[int, str]:
        path = trained.experiment.folder.path / ARM
        argv = ["--model", path, "--images", scenes / "leftImg8bit" / "val", "--out"]
        status = run_command(main, [str(each) for each in (*argv, tmp_path / out, *options)])
        return status, capsys.readouterr().err

    owner = ("--vault", trained.vaults, "--client", "aachen")
    assert call("before", "--quiet", "--confidence", *owner) == (0, "")
    mine = (*owner, "--embedding", trained.state())
    assert call("after", "--quiet", "--confidence", *mine) == (0, "")
    before, after = (
        {p.name: p.read_bytes() for p in sorted((tmp_path / out).rglob("confidence*.png"))}
        for out in ("before", "after")
    )
    assert before.keys() == after.keys() and before != after
    status, error = call("before", *mine)
    assert status == 2 and "holds predictions of another model" in error
    status, error = call("alone", "--embedding", trained.state())
    assert (status, error.count("\n")) == (2, 1) and "give --vault, --client" in error
    secret = next(trained.versions().glob("round_0002*")).read_bytes()[-64:]
    for path in (tmp_path / "after").rglob("*"):
        assert path.is_dir() or secret not in path.read_bytes()
