"""What a run's report says of attacks: what an audit of the run found, or that there was none."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from fl_ppseg.config.run_layout import AUDIT, LEAKS, REPORT
from fl_ppseg.leaks.file import read_leaks
from fl_ppseg.leaks.findings import findings, headline
from fl_ppseg.leaks.table import ADVERSARIES, ArmLeaks, LeakTable
from fl_ppseg.leaks.words import ALMOST, above, effort, one, sight, spent
from fl_ppseg.system.errors import InputError

NOT_RUN: Final = (
    "No attack was run for this report; python -m fl_ppseg.audit RUN runs them. What a score "
    "says of protection is nothing: an arm may score well and hide nothing."
)


@dataclass(frozen=True)
class Audited:
    """An audit of a run, as the run's report tells of it."""

    table: LeakTable
    link: str | None = None
    """Its report, relative to the run folder; None: it lies elsewhere."""

    def arm(self, name: str) -> ArmLeaks | None:
        """What it found of an arm; None: it did not attack it."""
        return next((arm for arm in self.table.arms if arm.arm == name), None)

    def is_broken(self, name: str) -> bool:
        """Whether the images of an arm come back from its ciphertexts alone."""
        arm = self.arm(name)
        best = None if arm is None else arm.best("ciphertext-thief")
        return (
            best is not None
            and best.scores is not None
            and sight(best.scores, self.table) >= ALMOST
        )

    def most(self, name: str) -> str | None:
        """The most that any adversary got from an arm, in words; None: it was not attacked."""
        arm = self.arm(name)
        if arm is None or not arm.findings:
            return None
        found = [(best, one(who)) for who in ADVERSARIES if (best := arm.best(who)) is not None]
        scored = [(best.scores, above(best), who) for best, who in found if best.scores is not None]
        if not scored:
            return f"no attack returned a picture ({spent(self.table)})"
        scores, excess, who = max(scored, key=lambda each: each[0].ssim)
        short = sight(scores, self.table).short
        ssim = f"SSIM\u00a0{scores.ssim:.2f}, {excess}"
        return f"attacks got {short} at most ({ssim}, {who}; {spent(self.table)})"

    @property
    def href(self) -> str:
        """Its report as the target of a link, never a scheme; empty where it lies elsewhere."""
        return "" if self.link is None else f"./{quote(self.link)}"

    @property
    def headline(self) -> str:
        """Its headline."""
        return headline(self.table)

    @property
    def findings(self) -> tuple[str, ...]:
        """What it found, a sentence each."""
        return findings(self.table)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """How it was made."""
        table = self.table
        return [("budget", spent(table)), ("effort", effort(table)), *table.made.items()]


def audit_of(run_dir: Path) -> Audited | str | None:
    """The audit that lies in a run folder; why it cannot be read; None where there is none."""
    path = run_dir / AUDIT / LEAKS
    if not path.exists() and not path.is_symlink():
        return None
    try:
        return Audited(read_leaks(path), report_link(run_dir, path.parent))
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")


def report_link(run_dir: Path, out: Path) -> str | None:
    """Where an audit's report lies, relative to the run folder; None outside of it."""
    report = (out / REPORT).absolute()
    is_inside = report.is_relative_to(run_dir.absolute())
    return report.relative_to(run_dir.absolute()).as_posix() if is_inside else None
