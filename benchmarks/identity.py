"""Plates and faces read from what survives, reading by reading, with numbers of one's own.

    python benchmarks/identity.py --rows 256 --block 8 --kind plates --public 2000 --steps 150 600

What `python -m fl_ppseg.audit --identity` counts, line by line as it is found.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch

from fl_ppseg.audit.attacks.reader import Budget
from fl_ppseg.audit.identity.effort import FACE, LETTER, IdentityEffort, pixels
from fl_ppseg.audit.identity.procedure import (
    ATTACKERS,
    OWNERS,
    READ,
    count_faces,
    count_plates,
    draw_faces,
    draw_plates,
    ways,
)
from fl_ppseg.setr.canonical import FORMS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--block", type=int, default=8)
    parser.add_argument("--kind", choices=["plates", "faces"], default="plates")
    parser.add_argument("--public", type=int, default=2000)
    parser.add_argument("--targets", type=int, default=400)
    parser.add_argument("--steps", type=int, nargs=2, default=[150, 600], metavar="N")
    parser.add_argument("--forms", nargs="*", default=list(FORMS))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    is_plates = options.kind == "plates"
    height = pixels(LETTER if is_plates else FACE, options.rows)
    draw = draw_plates if is_plates else draw_faces
    mine = draw(options.public, height, options.block, ATTACKERS, 1)
    theirs = draw(options.targets, height, options.block, OWNERS, 3)
    effort = IdentityEffort(network_steps=options.steps[0], reader_steps=options.steps[1])
    crop = "x".join(map(str, theirs.crops.shape[2:]))
    print(f"{options.kind}, {height:.1f} pixels high, crops of {crop}", flush=True)
    count: Any = count_plates if is_plates else count_faces
    for name, seen in ways(options.forms, options.block, effort, 0):
        began = time.process_time()
        ssim, *counts = count(
            seen, mine, theirs, options.block, Budget(options.steps[1], batch=READ)
        )
        told = ", ".join(
            f"{each.right} of {each.of} {np.round(each.interval, 3)}" for each in counts
        )
        print(f"{name}: SSIM {ssim:.3f}; {told}; {time.process_time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
