"""What a run's report says of attacks: what an audit of the run found, or that there was none."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from fl_ppseg.config.run_layout import AUDIT, LEAKS, REPORT
from fl_ppseg.leaks.file import read_leaks
from fl_ppseg.leaks.findings import findings as audit_findings
from fl_ppseg.leaks.findings import headline as audit_headline
from fl_ppseg.leaks.table import ADVERSARIES, ArmLeaks, LeakTable
from fl_ppseg.leaks.words import ALMOST, one, sight, spent
from fl_ppseg.report.markup import definitions, items, section, text
from fl_ppseg.system.errors import InputError

NOT_RUN: Final = (
    "No attack was run for this report; python -m fl_ppseg.audit RUN runs them. What a score "
    "says of protection is nothing: an arm may score well and hide nothing."
)
_BEGIN, _END = "<!--attacks-->", "<!--/attacks-->"


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
        scored = [(best.scores, who) for best, who in found if best.scores is not None]
        if not scored:
            return f"no attack returned a picture ({spent(self.table)})"
        scores, who = max(scored, key=lambda pair: pair[0].ssim)
        short = sight(scores, self.table).short
        return (
            f"attacks got {short} at most (SSIM\u00a0{scores.ssim:.2f}, {who}; {spent(self.table)})"
        )


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


def attacks_html(audited: Audited | str | None) -> str:
    """The section on attacks, between marks by which `retell` finds it."""
    return f"{_BEGIN}{section('What attacks got', _told(audited))}{_END}"


def retell(page: str, headline: str, findings: str, audited: Audited) -> str | None:
    """A run's report that tells of an audit which was made after it.

    Args:
        page: The report, as `write_report` wrote it.
        headline: Its new headline, as text.
        findings: Entries of its new list of findings, as markup.
        audited: The audit.

    Returns:
        The page; None if it is not one of this version.
    """
    heading = text(headline).replace("-", "\u2011")
    parts = (
        (r"<title>[^<]*</title>", f"<title>{text(headline)}</title>"),
        (r"<h1>[^<]*</h1>", f"<h1>{heading}</h1>"),
        (r'<ul class="findings">.*?</ul>', f'<ul class="findings">{findings}</ul>'),
        (f"{_BEGIN}.*?{_END}", attacks_html(audited)),
    )
    for pattern, new in parts:
        page, count = re.subn(pattern, lambda _, new=new: new, page, flags=re.DOTALL)  # type: ignore[misc]
        if count != 1:
            return None
    return page


def _told(audited: Audited | str | None) -> str:
    if audited is None:
        return f"<p>{text(NOT_RUN)}</p>"
    if isinstance(audited, str):
        return f"<p>{text(f'An audit lies beside this report and cannot be read: {audited}.')}</p>"
    table = audited.table
    target = "" if audited.link is None else f"./{quote(audited.link)}"  # never a scheme
    link = f'<p><a href="{target}">The whole audit</a></p>' if target else ""
    return (
        f"<p><b>{text(audit_headline(table))}.</b></p>"
        f"<ul>{items(audit_findings(table))}</ul>{link}"
        f'<dl class="facts">{definitions(facts(table).items())}</dl>'
    )


def facts(table: LeakTable) -> Mapping[str, Any]:
    """How an audit was made, for a list of facts."""
    effort = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in table.effort.items())
    return {"budget": spent(table), "effort": effort, **table.made}
