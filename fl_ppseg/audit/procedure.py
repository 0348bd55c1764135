"""A whole audit: from a config to the leak table and the report."""

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Self

from rich.console import Console

from fl_ppseg.audit.attacks.reader import STEPS
from fl_ppseg.audit.attacks.reader import Budget as Training
from fl_ppseg.audit.attacks.starts import LABEL_MAP, steps_before
from fl_ppseg.audit.cohort import Lots, companions
from fl_ppseg.audit.direct import ArmWeights
from fl_ppseg.audit.ends import Ends, ends
from fl_ppseg.audit.judging import Judge
from fl_ppseg.audit.labels import NUM_HELDOUT, LabelAttack
from fl_ppseg.audit.material import Holdings, Scenes, holdings, read_scenes
from fl_ppseg.audit.message_plan import looked_at
from fl_ppseg.audit.page.html import write_audit
from fl_ppseg.audit.page.terminal import leak_table_text
from fl_ppseg.audit.plan import planned
from fl_ppseg.audit.rounds import Overheard, rounds
from fl_ppseg.audit.running import Attacked, attack
from fl_ppseg.audit.segmenter import Segmenter, shipped_segmenter
from fl_ppseg.audit.training_labels import UpdateAttack
from fl_ppseg.audit.vault_search import search_run
from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import Config
from fl_ppseg.data.classes import ClassTable, load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.experiment.initial_weights import Models, initial_models
from fl_ppseg.experiment.preparation import data_root
from fl_ppseg.federation.checkpoints import check_ciphers, latest, model_of
from fl_ppseg.federation.provenance import made_with
from fl_ppseg.federation.public_weights import initial_model
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.federation.run_summary import RunSummary, read_summary
from fl_ppseg.leaks.table import SHIPPED_STEPS, Budget, DirectSegmentation, LabelFinding, LeakTable
from fl_ppseg.progress.steps import StepProgress, steps
from fl_ppseg.report.audited import Audited, report_link
from fl_ppseg.report.html import tell_of_audit
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import available_cpus, check_writable


@dataclass(frozen=True)
class Effort:
    """Size of the attacks."""

    num_targets: int = 16
    """Number of images to reconstruct."""
    num_public: int = 400
    """Most public images."""
    num_heard: int = 16
    """Most images of the client whose messages are attacked."""
    num_rounds: int = 10
    """Rounds of an active coordinator; at most the run's."""
    network_steps: int = STEPS
    """Training steps of every network."""
    num_requests: int = 40
    """Most evaluations that a coordinator requests to recover label maps."""

    @classmethod
    def quick(cls) -> Self:
        """For a first look: weaker attacks, fewer targets."""
        return cls(
            num_targets=4,
            num_public=100,
            num_heard=4,
            num_rounds=2,
            network_steps=40,
            num_requests=6,
        )

    @property
    def budget(self) -> Budget:
        """Name of the effort; fewer targets make no attack weaker, so they do not count."""
        names: tuple[tuple[Budget, Effort], ...] = (("full", Effort()), ("quick", Effort.quick()))
        tried = replace(self, num_targets=1)
        return next((n for n, e in names if replace(e, num_targets=1) == tried), "other")


def audit(
    config: Config,
    run: Path | None,
    out: Path,
    effort: Effort,
    *,
    vault_dir: Path | None = None,
    pictures: bool = False,
    quiet: bool = False,
) -> LeakTable:
    """Attack the arms of a config, and write leaks.json, report.html and figures/.

    Args:
        config: The experiment; with `run`, the run's own.
        run: Its run folder, for the scores of its arms and its segmenter of plain images.
        out: Where to write.
        effort: Size of the attacks.
        vault_dir: Vaults of the run's owners, to search the run for their keys; None: no search.
        pictures: Show images in the report even if they are not public.
        quiet: Print the table only.

    Raises:
        InputError: The data or settings do not fit, or the run used earlier versions of ciphers.
        RunError: A worker or a client failed.
    """
    started = time.monotonic()
    summary = _summary_of(run)  # refused now, not after the attacks
    _check_ciphers(config, run)
    num_workers = config.num_workers or available_cpus()
    classes = load_class_table(config.data.classes)
    seed = config.seeds[0]
    models = initial_models(config.model_copy(update={"seeds": (seed,)}), classes.num_classes)
    check_writable(out)  # refused now, not after the attacks
    with steps(sys.stderr, quiet) as progress:
        root = data_root(config.data, num_workers, progress)
        dataset = open_dataset(root, classes)
        scenes = read_scenes(dataset, config.data, effort.num_targets, effort.num_public)
        num_others = _num_summed(config) - 1
        others = companions(dataset, scenes.client, num_others, effort.num_heard)
        arms, heard, labels = _victims(config, models, classes, scenes, others, effort, progress)
        training = Training(steps=effort.network_steps)
        size, num_classes = arms[0].block_size, classes.num_classes
        both = ends(scenes, size, num_classes, training)
        jobs = [*both, *planned(scenes, arms, heard, num_classes, training)]
        blind, answered, *attacked = attack(jobs, num_workers, progress)
    judge = Judge(scenes, size, _segmenter(config, run, classes), Ends.of(blind, answered))
    ratios = {} if summary is None else summary.ratios
    weights = ArmWeights(run, seed, {a.arm: models[seed, a.arm] for a in arms}, num_classes)
    direct = {arm.arm: weights.segmented(arm, scenes) for arm in arms}
    table = _table(config, ratios, judge, arms, attacked, labels, direct, pictures)
    table = replace(
        table,
        budget=effort.budget,
        effort=asdict(effort) | {SHIPPED_STEPS: steps_before(LABEL_MAP, judge.block_size)},
        made=made_with(config),
        summed=1 + len(others),
        seconds=round(time.monotonic() - started, 1),
    )
    if run is not None and vault_dir is not None:
        searched = search_run(run, vault_dir, judge.block_size)
        table = replace(table, key_search=str(searched))
    out.mkdir(parents=True, exist_ok=True)
    report = write_audit(out, table)
    console = Console()
    console.print(leak_table_text(table))
    told = [f"searched for keys: {table.key_search}"] if table.key_search is not None else []
    told += [f"report: {report}"]
    if run is not None:
        told += [_update_run_report(config, run, out, table, summary)]
    for line in told:  # may hold the user's own names: not markup
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return table


def _victims(
    config: Config,
    models: Models,
    classes: ClassTable,
    scenes: Scenes,
    others: Lots,
    effort: Effort,
    progress: StepProgress,
) -> tuple[list[Holdings], dict[str, list[Overheard]], dict[str, tuple[LabelFinding, ...]]]:
    """For every arm: what the adversaries hold, the rounds of its coordinator, and the findings on
    label maps."""
    seed, table = config.seeds[0], arms_of(config)
    plain = initial_model(config, classes.num_classes, seed)
    arms, heard, labels = [], {}, {}
    for done, (name, protection) in enumerate(table.items()):
        progress.update("playing the owners", done, len(table))
        arm = holdings(name, protection, scenes, plain.state_dict(), plain.patch_size)
        model = models[seed, name]
        own = arm.as_read(scenes.public[: looked_at(scenes.public)])
        images = scenes.sources[: effort.num_heard]
        heard[name] = rounds(config, name, model, own, images, effort.num_rounds, others)
        oracle = LabelAttack(config, name, model, own, scenes.public_labels, effort.num_requests)
        updates = UpdateAttack(config, name, model, own, scenes.public_labels, effort.num_rounds)
        heldout = oracle.findings(scenes.sources[: NUM_HELDOUT + 1])
        labels[name] = (*heldout, *updates.findings(images, others))
        arms.append(arm)
    progress.update("playing the owners", len(table), len(table))
    return arms, heard, labels


def _num_summed(config: Config) -> int:
    """Clients of whose updates a coordinator sees the sum alone; 1: it sees single ones."""
    federation = config.federation
    return federation.num_asked(config.clients) if federation.secure_aggregation else 1


def _check_ciphers(config: Config, run: Path | None) -> None:
    """Check that the run's arms were trained with the current versions of the ciphers.

    Raises:
        InputError: An arm was trained on images that another version of its cipher encrypted.
    """
    folder = None if run is None else RunFolder(run)
    for (name, arm), seed in product(arms_of(config).items(), config.seeds):
        found = folder and folder.latest(name, seed)
        if found:
            check_ciphers(found, arm)


def _segmenter(config: Config, run: Path | None, classes: ClassTable) -> Segmenter | None:
    """The run's own model of plain images, or the package's."""
    checkpoint = None if run is None else latest(RunFolder(run), "plain", config.seeds[0])
    if checkpoint is not None:
        return Segmenter(model_of(checkpoint), classes.num_classes)
    return shipped_segmenter(classes, config.data.image_size)


def _table(
    config: Config,
    ratios: Mapping[str, float],
    judge: Judge,
    arms: list[Holdings],
    attacked: list[Attacked],
    labels: Mapping[str, tuple[LabelFinding, ...]],
    direct: Mapping[str, DirectSegmentation],
    pictures: bool,
) -> LeakTable:
    scenes = judge.scenes
    table = arms_of(config)
    is_public = config.data.root is None
    shows = is_public or pictures
    return LeakTable(
        source="procedural scenes" if is_public else "your own data",
        num_targets=len(scenes.targets),
        image_size=config.data.image_size,
        block_size=judge.block_size,
        nothing=judge.score(scenes.targets, judge.ends.nothing),
        answer=judge.score(scenes.targets, judge.ends.answer),
        plain_miou=judge.miou(scenes.targets),
        arms=tuple(
            judge.leaks(
                arm,
                attacked,
                table[arm.arm].note,
                ratios.get(arm.arm),
                shows,
                labels[arm.arm],
                direct[arm.arm],
            )
            for arm in arms
        ),
        targets=(scenes.targets[0],) if shows else (),
        seconds=0.0,
    )


def _summary_of(run: Path | None) -> RunSummary | None:
    """The summary of a run; None without a run, or if it has none."""
    if run is None or not RunFolder(run).summary.exists():
        return None
    return read_summary(RunFolder(run).summary)


def _update_run_report(
    config: Config, run: Path, out: Path, table: LeakTable, summary: RunSummary | None
) -> str:
    """Add the findings to the run's own report; returns a line that says whether it was done."""
    folder, audited = RunFolder(run), Audited(table, report_link(run, out))
    why = f"{folder.report} is missing or of another version"
    try:
        if summary is None:
            why = f"{folder.summary} is missing"
        elif tell_of_audit(folder.report, summary, folder.lines(), config, audited):
            return f"the run's report now includes the audit: {folder.report}"
    except (InputError, LookupError, TypeError, ValueError) as error:  # the audit itself is done
        why = f"{folder.results} cannot be read ({error})"
    return f"the run's report does not include the audit: {why}"
