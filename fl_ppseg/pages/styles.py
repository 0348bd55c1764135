"""The looks that all figures of a report share: one colour and line an arm, safe for most eyes."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

INK, MUTED, RULE, PAPER = "#1c2024", "#60646c", "#dfe1e6", "#fffffe"
CSS_COLOURS = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)", PAPER: "none"}
"""Colours of figures that are those of the page around them, light or dark."""
ARM_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1")
"""Okabe and Ito's palette without yellow (too pale on white), and a violet."""
LINES: tuple[Literal["solid", "dashed", "dotted"], ...] = ("solid", "dashed", "dotted")
STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "fl_ppseg",
    "font.family": ["DejaVu Sans"],
    "font.size": 10.0,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
}


class ArmStyle(NamedTuple):
    """How an arm is drawn: `#rrggbb` and a line, together its own among 22 arms."""

    colour: str
    line: Literal["solid", "dashed", "dotted"] = "solid"

    @property
    def css(self) -> str:
        """The colour as a page has it."""
        return CSS_COLOURS.get(self.colour, self.colour)


def arm_styles(arms: Sequence[str], baseline: str = "plain") -> dict[str, ArmStyle]:
    """A style per arm: the baseline is ink, the others take the palette in their order, then again
    with dashed and with dotted lines.
    """
    others = [arm for arm in arms if arm != baseline]
    styles = {arm: _style(position) for position, arm in enumerate(others)}
    return {arm: styles.get(arm, ArmStyle(INK)) for arm in arms}


def _style(position: int) -> ArmStyle:
    cycle, place = divmod(position, len(ARM_COLOURS))
    return ArmStyle(ARM_COLOURS[place], LINES[cycle % len(LINES)])
