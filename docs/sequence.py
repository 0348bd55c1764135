"""The steps on separate machines: who sends what to whom, in order.

`python docs/sequence.py` writes docs/sequence.svg.
"""

from pathlib import Path

from picture import INK, QUIET, box, text

SEQUENCE = Path(__file__).with_name("sequence.svg")
PARTIES = ("owner (vault)", "node", "coordinator")
LINES = (140, 460, 780)
"""Place of each party's line across the picture."""
OWNER, NODE, COORDINATOR = range(3)
STEPS = (
    (COORDINATOR, COORDINATOR, "initialise, coordinator init"),
    (COORDINATOR, OWNER, "config.yaml, ca.crt, hash of the bundle"),
    (OWNER, OWNER, "vault new, vault encrypt (agrees, in words)"),
    (OWNER, NODE, "node folder: encrypted images,\nlabel maps, policy"),
    (NODE, NODE, "node init"),
    (NODE, COORDINATOR, "node.pub\n(the fingerprint by telephone)"),
    (COORDINATOR, COORDINATOR, "enrol, start"),
    (NODE, COORDINATOR, "node start:\ncalls the one open port"),
    (COORDINATOR, NODE, "run: requests, round after round,\neach checked against the policy"),
)
STEP, TOP, LOOP = 64, 100, 34
"""Pixels between two steps, above the first, and out to the side of a step by one party."""


def sequence() -> str:
    """The whole picture."""
    height = TOP + STEP * len(STEPS)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1040 {height}" width="1040" '
        f'height="{height}" font-family="Helvetica, Arial, sans-serif" role="img" '
        'aria-labelledby="title">',
        '<title id="title">What owner, node and coordinator send each other, in order</title>',
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
        f'markerHeight="8" orient="auto"><path d="M0 0L10 5L0 10z" fill="{INK}"/></marker></defs>',
        f'<rect width="1040" height="{height}" rx="14" fill="#ffffff"/>',
    ]
    for name, x in zip(PARTIES, LINES, strict=True):
        lines += [box(x - 80, 16, 160, 40, "#f8fafc"), _words(name, x, 41, bold=True)]
        lines += [f'<path d="M{x} 56V{height - 16}" stroke="{QUIET}" stroke-dasharray="4 4"/>']
    for number, (sender, receiver, words) in enumerate(STEPS):
        lines += _step(LINES[sender], LINES[receiver], TOP + STEP * number, words)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _step(x1: int, x2: int, y: int, words: str) -> list[str]:
    """An arrow with its words: above it, or beside it for a step of one party."""
    stroke = f'fill="none" stroke="{INK}" stroke-width="2" marker-end="url(#tip)"'
    if x1 == x2:
        loop = f'<path d="M{x1} {y - 12}h{LOOP}v20H{x1 + 4}" {stroke}/>'
        return [loop, text(words, x1 + LOOP + 8, y + 3)]
    arrow = f'<path d="M{x1} {y + 8}H{x2 + (-4 if x2 > x1 else 4)}" {stroke}/>'
    rows = words.split("\n")
    middle = (min(x1, x2) + 160) if abs(x2 - x1) > 400 else (x1 + x2) // 2
    return [
        arrow,
        *(
            _words(row, middle, y + 18 * (number - len(rows) + 1))
            for number, row in enumerate(rows)
        ),
    ]


def _words(words: str, x: int, y: int, bold: bool = False) -> str:
    weight = ' font-weight="700"' if bold else ""
    return text(words, x, y, more=f'text-anchor="middle"{weight}')


if __name__ == "__main__":
    SEQUENCE.write_text(sequence(), encoding="utf-8")
