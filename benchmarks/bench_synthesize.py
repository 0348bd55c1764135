"""Speed of synthesis on one core, as a rate and as a ratio to only saving a picture of that size.

    python benchmarks/bench_synthesize.py --size 128x256 --scenes 63

Seconds of this process's own processor time, PNG files written; both figures from the same run.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from fl_ppseg.scenes.cities import TRAIN_CITIES, VAL_CITIES
from fl_ppseg.scenes.files import SceneFiles
from fl_ppseg.system.command_line import image_size


def seconds(action: Callable[[int], None], number: int) -> float:
    """Processor time of `number` calls, after as many that warm caches up as there are cities."""
    for index in range(21):
        action(index)
    start = time.process_time()
    for index in range(number):
        action(index)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=image_size, default="128x256")
    parser.add_argument("--scenes", type=int, default=63)
    options = parser.parse_args()
    cities = [*TRAIN_CITIES, *VAL_CITIES]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        constant = Image.fromarray(np.full((*options.size, 3), 127, np.uint8))

        def draw(index: int) -> None:
            city = cities[index % len(cities)]
            scene = SceneFiles(root, "train", city, index, 0, options.size)
            scene.make_folders()
            scene.write()

        def save(index: int) -> None:
            constant.save(root / f"constant_{index}.png", compress_level=1)

        drawn = seconds(draw, options.scenes) / options.scenes
        saved = seconds(save, options.scenes) / options.scenes
    height, width = options.size
    print(f"{height}x{width}, {options.scenes} scenes of {len(cities)} cities, one core")
    print(f"draw and save a scene   {1000 * drawn:8.2f} ms   {1 / drawn:8.1f} scenes/s")
    print(f"save a constant picture {1000 * saved:8.2f} ms   ratio {drawn / saved:8.1f}")


if __name__ == "__main__":
    main()
