"""A whole audit, small: a run is trained, attacked and reported; attacks that must succeed do."""

import io
import json
import shutil
from collections import defaultdict
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small
from rich.console import Console

from fl_ppseg.audit import command
from fl_ppseg.audit import procedure as whole
from fl_ppseg.audit.attacks import chains
from fl_ppseg.audit.attacks.position_correlation import correlate_positions
from fl_ppseg.audit.containers import artefacts
from fl_ppseg.audit.key_search import needles_of_embedding, needles_of_permutation, search
from fl_ppseg.audit.labels import AGREED, OWN, WITHIN
from fl_ppseg.audit.material import Holdings, Scenes, read_scenes
from fl_ppseg.audit.procedure import Effort, audit
from fl_ppseg.audit.segmenter import Segmenter
from fl_ppseg.config.sections import Config
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.federation.checkpoints import latest, model_of
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.federation.run_summary import SCHEMA
from fl_ppseg.leaks.file import read_leaks
from fl_ppseg.leaks.table import ADVERSARIES, UNCHECKED, ArmLeaks
from fl_ppseg.progress.steps import StepProgress
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system import workers
from fl_ppseg.system.command_line import run
from fl_ppseg.system.errors import InputError

ARMS = [
    "plain",
    "plain-frozen-embedding",
    "per-client-private",
    "per-image-invariant",
    "per-image",
    "domain-adaptation",
]
TINY = Effort(
    num_targets=2, num_public=6, num_heard=2, num_rounds=2, network_steps=2, num_requests=3
)


class Audited:
    """A small run, audited once; nothing here changes it."""

    def __init__(self, scenes: Path, place: Path) -> None:
        self.held: list[Holdings] = []
        settings = small.config(scenes, arms=ARMS, federation={"num_rounds": 2})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(workers, "ProcessPoolExecutor", small.InlinePool)
            patch.setattr(whole, "holdings", self._noted)
            patch.setattr("fl_ppseg.audit.message_plan.searched", _searched_a_little)
            patch.setattr(chains, "correlate_positions", partial(correlate_positions, num_starts=1))
            experiment = small.prepared(settings, place)
            self.run = small.federate(experiment).path
            ratios = {arm: {"ratio_to_plain": 0.5} for arm in ARMS}
            (self.run / "summary.json").write_text(
                json.dumps({"schema": SCHEMA, "arms": ratios}), "utf-8"
            )
            self.out = self.run / "audit"
            with redirect_stdout(io.StringIO()) as printed:
                self.table = audit(
                    settings, self.run, self.out, TINY, vault_dir=place / "vaults", pictures=True
                )
            self.printed = printed.getvalue()

    def _noted(self, *arguments: Any) -> Holdings:
        from fl_ppseg.audit.material import holdings

        self.scenes: Scenes = arguments[2]
        self.held.append(holdings(*arguments))
        return self.held[-1]

    def arm(self, name: str) -> ArmLeaks:
        return next(arm for arm in self.table.arms if arm.arm == name)


def _searched_a_little(exchange: Any) -> np.ndarray:
    from fl_ppseg.audit.attacks.gradient_matching import gradient_matching

    return gradient_matching(exchange, num_iterations=2, num_restarts=1).images


@pytest.fixture(scope="module")
def audited(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Audited:
    return Audited(scenes, tmp_path_factory.mktemp("audit") / "x[bold]y")


def test_with_secure_aggregation_the_coordinators_attack_the_sum_of_a_round(
    scenes: Path, tmp_path: Path
) -> None:
    sums = {"num_rounds": 2, "secure_aggregation": True}
    settings = small.config(scenes, arms=["plain", "per-client-private"], federation=sums)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.setattr(workers, "ProcessPoolExecutor", small.InlinePool)
        patch.setattr(chains, "correlate_positions", partial(correlate_positions, num_starts=1))
        table = audit(settings, None, tmp_path / "out", TINY)
    assert table.summed == settings.clients == 3
    for arm in table.arms:
        notes: dict[str, list[str]] = defaultdict(list)
        for found in arm.findings:
            notes[found.adversary].append(found.note)
        for who in ("coordinator", "active-coordinator"):
            assert notes[who] and all(n.startswith("sum over 3 clients: ") for n in notes[who])
        assert not any("sum over" in note for note in notes["ciphertext-thief"])
        assert "gradient-matching" not in {found.attack for found in arm.findings}
        trained = [f for f in arm.labels if f.maps == "training"]
        assert trained and all(f.num_images == TINY.num_heard for f in trained)
    said = " ".join(printed.getvalue().split())
    assert "Updates were attacked as secure aggregation shows them" in said
    assert read_leaks(tmp_path / "out" / "leaks.json").to_json() == table.to_json()
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "the sum of 3 clients" in page


def test_single_updates_are_attacked_where_they_are_sent(audited: Audited) -> None:
    assert audited.table.summed == 1
    assert not any("sum over" in f.note for arm in audited.table.arms for f in arm.findings)
    assert "secure aggregation" not in audited.printed


def test_paths_are_printed_as_they_are(audited: Audited) -> None:
    assert f"report: {audited.out}/report.html" in audited.printed
    assert "the run's report does not include the audit" in audited.printed  # there is none here
    assert "AUDIT WITH OTHER NUMBERS" in audited.printed


def test_label_maps_are_asked_for_in_every_arm_and_a_model_of_its_own_is_refused(
    audited: Audited,
) -> None:
    for arm in audited.table.arms:
        found = {each.model: each for each in arm.labels if each.maps == "held-out"}
        assert found[OWN].right is None and found[OWN].note.startswith("refused: ")
        assert found[AGREED].right is None
        assert found[AGREED].note.startswith("refused: weights in ")
        for model in (WITHIN, UNCHECKED):
            assert 0 < found[model].num_requests <= TINY.num_requests
            assert found[model].right is not None
        trained = {each.model: each for each in arm.labels if each.maps == "training"}
        assert trained[OWN].right is None and trained[OWN].note.startswith("refused: ")
        assert trained[AGREED].right is None  # the small model has too few channels to be read by
        assert trained[AGREED].note.startswith("the attack applies to PUP decoders")


def test_every_arm_is_attacked_with_the_weights_that_it_starts_from(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: dict[str, list[SETR]] = {}

    class Noted:
        def __init__(self, config: Config, arm: str, network: SETR, *_: Any) -> None:
            met.setdefault(arm, []).append(network)

        def findings(self, *_: Any) -> tuple[()]:
            return ()

    for attack in ("rounds", "LabelAttack", "UpdateAttack"):
        monkeypatch.setattr(whole, attack, Noted)
    settings, classes = small.config(scenes, arms=ARMS), load_class_table("cityscapes")
    found = read_scenes(open_dataset(scenes, classes), settings.data, 2, 6)
    models = {(0, arm): small.model() for arm in ARMS}
    progress = StepProgress(Console(), quiet=True)
    held, _, _ = whole._victims(settings, models, classes, found, {}, TINY, progress)
    assert met == {arm: [models[0, arm]] * 3 for arm in ARMS}
    plain = small.model().state_dict()[EMBEDDING_TENSORS[0]].numpy()
    assert all(np.array_equal(arm.public_embedding, plain) for arm in held)


def test_every_arm_and_adversary_is_in_the_table(audited: Audited) -> None:
    assert [arm.arm for arm in audited.table.arms] == ARMS
    written = read_leaks(audited.out / "leaks.json")
    assert written.to_json() == audited.table.to_json()
    for arm in audited.table.arms:
        tried = {finding.adversary for finding in arm.findings}
        assert tried >= {*ADVERSARIES} - {"known-plaintext"}
        assert arm.ratio_to_plain == 0.5
        for adversary in ADVERSARIES[:3]:
            assert arm.best(adversary) is not None
    assert (audited.out / "report.html").is_file()


def test_every_picture_has_its_excess_above_the_answer_alone_on_the_same_images(
    audited: Audited,
) -> None:
    answer = audited.table.answer
    assert answer.ssim > audited.table.nothing.ssim  # two steps, but outlines are in the input
    assert answer.miou is not None
    findings = [found for arm in audited.table.arms for found in arm.findings]
    for found in findings:
        if found.scores is None:
            assert found.excess is None
        elif found.note.startswith("one image"):  # the first target alone
            first = found.scores.ssim - (found.excess or 0.0)
            assert first != pytest.approx(answer.ssim, abs=1e-6)
        else:
            assert found.excess == pytest.approx(found.scores.ssim - answer.ssim)
    assert any(found.note.startswith("one image") and found.scores for found in findings)
    assert f"{answer.ssim:.3f} the answer alone" in audited.printed


def test_an_arm_s_own_weights_segment_its_ciphertexts_where_they_can_read_them(
    audited: Audited,
) -> None:
    direct = {arm.arm: arm.direct for arm in audited.table.arms}
    for name in ("per-client-private", "domain-adaptation"):
        assert direct[name].miou is None
        assert " key" in direct[name].note
    for name in ("plain", "plain-frozen-embedding", "per-image-invariant", "per-image"):
        (held,) = [each for each in audited.held if each.arm == name]
        checkpoint = latest(RunFolder(audited.run), name, 0)
        assert checkpoint is not None and checkpoint.round == 2
        own = Segmenter(model_of(checkpoint), 19)
        scenes = audited.scenes
        assert direct[name].miou == pytest.approx(own.miou(held.ciphertexts, scenes.labels))
        assert direct[name].note.startswith("weights of round 2, seed 0; 2 ")
        assert direct[name].start is not None and direct[name].start != direct[name].miou
    assert direct["plain"].miou == audited.table.plain_miou  # the same weights and images


def test_made_weights_are_tried_on_every_arm_and_networks_read_what_they_show_of_ciphertexts(
    audited: Audited,
) -> None:
    for arm in audited.table.arms:
        tried = {f.attack: f for f in arm.findings if f.adversary == "active-coordinator"}
        assert "imprint" in tried
        assert "2 rounds" in tried["imprint"].note
        shows_ciphertexts = arm.arm in ("per-image-invariant", "per-image")
        assert ("imprint+network" in tried) == shows_ciphertexts
        assert ("imprint+thumbnail" in tried) == shows_ciphertexts


def test_an_embedding_adapted_to_a_key_gives_made_weights_what_a_private_one_gives(
    audited: Audited,
) -> None:
    shown = []
    for name in ("per-client-private", "domain-adaptation"):
        (found,) = [f for f in audited.arm(name).findings if f.attack == "imprint"]
        assert found.scores is not None and found.picture is not None
        shown.append(found.scores.ssim)
    assert shown[0] == pytest.approx(shown[1], abs=0.05)


def test_plain_shards_want_no_attack(audited: Audited) -> None:
    for name in ("plain", "plain-frozen-embedding"):
        best = audited.arm(name).best("ciphertext-thief")
        assert best is not None and best.scores is not None
        assert best.attack == "no-attack" and best.scores.ssim == 1.0


def test_one_known_pair_or_the_private_embedding_is_the_key_of_a_client(audited: Audited) -> None:
    found = {f.attack: f for f in audited.arm("per-client-private").findings}
    for attack in ("known-plaintext", "chosen-plaintext", "embedding-matching"):
        scores = found[attack].scores
        assert found[attack].key_recovered == 1.0
        assert scores is not None and scores.ssim == 1.0


def test_what_was_known_of_one_image_says_nothing_of_another_under_keys_of_their_own(
    audited: Audited,
) -> None:
    for name in ("per-image", "per-image-invariant"):
        (found,) = [f for f in audited.arm(name).findings if f.attack == "known-plaintext"]
        assert found.scores is not None and found.scores.ssim < 0.5
        assert found.key_recovered is None


def test_the_coordinator_gets_a_lone_plain_image_and_of_an_encrypted_one_the_ciphertext(
    audited: Audited,
) -> None:
    best = {name: audited.arm(name).best("coordinator") for name in ("plain", "per-image")}
    plain, encrypted = (found.scores for found in best.values() if found is not None)
    assert plain is not None and encrypted is not None
    assert plain.ssim > 0.9
    assert encrypted.ssim < 0.6


def test_a_private_embedding_gives_the_coordinator_what_a_frozen_one_gives(
    audited: Audited,
) -> None:
    private, frozen = (
        [f for f in audited.arm(name).findings if f.adversary == "coordinator"]
        for name in ("per-client-private", "plain-frozen-embedding")
    )
    assert [f.attack for f in private] == [f.attack for f in frozen]
    for one, other in zip(private, frozen, strict=True):
        assert (one.scores is None) == (other.scores is None)
        if one.scores is not None and other.scores is not None:
            assert one.scores.ssim == pytest.approx(other.scores.ssim, abs=0.02)


def test_the_run_was_searched_for_keys(audited: Audited) -> None:
    assert audited.table.key_search is not None
    assert audited.table.key_search.startswith("no key material of 6 vaults in ")


def test_the_audit_itself_gives_no_key_away(audited: Audited) -> None:
    (owner,) = [held for held in audited.held if held.arm == "per-client-private"]
    assert owner.key is not None and owner.embedding is not None
    flat = owner.embedding.reshape(len(owner.embedding), -1)
    needles = [*needles_of_permutation(owner.key.index), *needles_of_embedding(flat)]
    assert search(artefacts(audited.out), needles) == set()
    assert search([("planted", owner.key.index.astype("<i4").tobytes())], needles) == {"planted"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere"], "not a run folder"),
        (["--arms", "plain", "--cipher", "shuffle"], "leave one of them out"),
        (["--arms", "no-such-arm"], "unknown arm"),
        (["--cipher", "no-such-cipher"], "unknown cipher"),
        (["--targets", "0"], "expected 1 or more"),
        (["--vault-dir", "v"], "--vault-dir belongs to a run"),
        (["--set", "clients=4"], "an audit without a run trains and federates nothing"),
        (
            ["--set", "federation.secure_aggregation=true", "--set", "federation.wait_seconds=1"],
            "federation.wait_seconds: an audit without a run",
        ),
    ],
)
def test_bad_options_end_in_one_line(
    arguments: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=reason) as caught:
        command.main([*arguments, "--quick", "--set", "data.num_train=36"])
    assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_refused_before_any_attack(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "attack", lambda *_: pytest.fail("attacked first"))
    (tmp_path / "file").write_text("", "utf-8")
    out = str(tmp_path / "file" / "audit")
    assert run(command.main, ["--arms", "plain", "--data-root", str(scenes), "--out", out]) == 2


def test_a_truncated_image_is_named_in_one_line(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(scenes, tree)
    for image in (tree / "leftImg8bit/train/aachen").iterdir():
        image.write_bytes(image.read_bytes()[:200])
    options = ["--arms", "plain", "--data-root", str(tree), "--targets", "2", "--quiet"]
    settings = ["--set", "data.image_size=[32,64]", "--out", str(tmp_path / "out")]
    assert run(command.main, [*options, *settings]) == 2
    error = capsys.readouterr().err
    assert "aachen" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_run_is_audited_with_its_own_config_and_once(audited: Audited) -> None:
    with pytest.raises(InputError, match="leave out --set"):
        command.main([str(audited.run), "--set", "seeds=[1]"])
    with pytest.raises(InputError, match="holds an audit already"):
        command.main([str(audited.run)])
