"""How long `lpsnet data check` takes, beside decoding the same files and nothing else; interleaved, whole processes.

Makes `--images` PNG images of 1280x720 with label maps, of which `--different` are different (the others are hard
links), in a folder that is removed again unless it was there before.

    python tools/check_speed.py --images 10000 --different 200 --folder check
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from lpsnet.data.synthetic import SceneSplit

SIZE = (720, 1280)
DECODE = """
import os, sys, cv2
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
cv2.setNumThreads(1)
files = sorted(Path(sys.argv[1]).glob("images/*.png")) + sorted(Path(sys.argv[1]).glob("masks/*.png"))
with ThreadPoolExecutor(os.cpu_count()) as pool:
    assert all(pool.map(lambda path: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) is not None, files))
"""


def make(folder: Path, num_images: int, num_different: int) -> None:
    """Scenes with noise, so that they compress as photographs do."""
    scenes, dice = SceneSplit(size=SIZE, count=num_different, seed=0, name="scenes"), np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(num_images):
        image, mask = (folder / kind / f"{number:06}.png" for kind in ("images", "masks"))
        if number >= num_different:
            for path in (image, mask):
                os.link(path.with_name(f"{number % num_different:06}.png"), path)
            continue
        noisy = scenes.image(number) + dice.normal(0, 6, (*SIZE, 3))
        cv2.imwrite(str(image), np.clip(noisy, 0, 255).astype(np.uint8)[..., ::-1])
        cv2.imwrite(str(mask), scenes.labels(number))
    names = ", ".join(scenes.label_space.names)
    (folder / "data.yaml").write_text(f"names: [{names}]\nimages: images\nmasks: masks\nval_fraction: 0.1\n")


def main() -> None:
    """Print both times, and their ratio, of every turn and in the middle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--different", type=int, default=200)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("check-speed"))
    options = parser.parse_args()
    if not (was_there := options.folder.is_dir()):
        make(options.folder, options.images, min(options.different, options.images))
    commands = {
        "decode": ["-c", DECODE, options.folder],
        "check": ["-m", "lpsnet", "data", "check", options.folder / "data.yaml"],
    }
    ratios = []
    for turn in range(options.turns):
        seconds = {}
        for name in list(commands)[:: 1 if turn % 2 else -1]:
            begun = time.monotonic()
            subprocess.run([sys.executable, *map(str, commands[name])], stdout=subprocess.DEVNULL, check=True)
            seconds[name] = time.monotonic() - begun
        ratios.append(seconds["check"] / seconds["decode"])
        rate = options.images / seconds["check"]
        print(
            f"decode {seconds['decode']:.1f} s, check {seconds['check']:.1f} s, {rate:.0f} images/s: {ratios[-1]:.2f}"
        )
    print(f"median ratio {median(ratios):.2f}")
    if not was_there:
        shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
