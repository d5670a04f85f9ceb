"""The curve mIoU over number of labelled images, for images chosen by `lpsnet next` and at random, side by side.

A labelled data set plays the part of a pool whose labels are not known yet: a few images are "labelled", a network is
trained, the next are chosen, and so on. Every seed starts both methods from the same images. Finished trainings are
kept, so the same command resumes. A line a training is added to OUT/curve.jsonl, and the table is printed at the end.

    python tools/labelling_curve.py --data camvid:CamVid --out curve --test 0016E5 --start 12 --step 12 --rounds 5 \
        --seeds 3 -- --arch lite0 --encoder efficientnet_lite0 --minutes 10

`--test` is a split, or the beginning of the names of a film that is left out of the pool: neighbouring frames of one
film in training and test would flatter every method. What follows `--` goes to `lpsnet train`.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np

from lpsnet.data import convert
from lpsnet.data.dataset import Dataset, open_dataset
from lpsnet.data.split import FileSplit
from lpsnet.evaluation.selection import select
from lpsnet.inference.segmenter import Segmenter
from lpsnet.io import append_line

METHODS = ("next", "random")


def main(words: list[str]) -> None:
    """Run the trainings that are missing, then print the table."""
    own, train = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "out", "test"):
        parser.add_argument(f"--{name}", required=True)
    for name, default in (("start", 12), ("step", 12), ("rounds", 5), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(own)
    pool, test = pool_and_test(open_dataset(options.data), options.test)
    print(f"{len(pool)} images in the pool, {len(test)} for the test", flush=True)
    out = Path(options.out)
    for seed in range(options.seeds):
        for method in METHODS:
            run(pool, test, out / f"seed_{seed}_{method}", method, seed, options, train)
    print_table(out / "curve.jsonl")


def pool_and_test(data: Dataset, test: str) -> tuple[FileSplit, FileSplit]:
    """The images to choose from and those to score on."""
    parts = [part for part in data.parts.values() if isinstance(part, FileSplit)]
    if test in data.parts:
        (tested,) = [part for part in parts if part.name == test]
        return next(part for part in parts if part.name == "train"), tested
    labelled = [pair for part in parts for pair in part.pairs if pair.mask is not None]
    of_test = {pair.name: pair for pair in labelled if Path(pair.name).name.startswith(test)}
    others = {pair.name: pair for pair in labelled if pair.name not in of_test}
    return tuple(replace(parts[0], pairs=tuple(pairs.values())) for pairs in (others, of_test))  # type: ignore[return-value]


def run(
    pool: FileSplit, test: FileSplit, out: Path, method: str, seed: int, options: argparse.Namespace, train: list[str]
) -> None:
    """The rounds of one method from one start."""
    rng = np.random.default_rng(seed)
    chosen = sorted(rng.choice(len(pool), options.start, replace=False).tolist())
    for number in range(options.rounds):
        folder = out / f"round_{number}" if number else out.parent / f"seed_{seed}_start"  # which both methods share
        scores = folder / "scores.json"
        if not scores.exists():
            write_data(folder / "data", pool, test, chosen)
            resume = ["--resume"] if (folder / "run/state.safetensors").exists() else []
            words = ["--data", folder / "data", "--out", folder / "run", *train, "--set", f"seed={seed}", *resume]
            lpsnet("train", *words)
            model = folder / "run/model.safetensors"
            lpsnet("evaluate", "--model", model, "--data", folder / "data", "--split", "val", "--json", scores)
            row: dict[str, object] = {"seed": seed, "method": method if number else "both", "num_labelled": len(chosen)}
            row |= {"miou": json.loads(scores.read_text())["miou"], "chosen": [pool.names[it] for it in chosen]}
            append_line(out.parent / "curve.jsonl", json.dumps(row))
            print(f"{out.name}: {len(chosen)} images, {row['miou']:.2f} mIoU", flush=True)
        if number + 1 < options.rounds:
            chosen += choose(pool, chosen, folder, method, rng, options.step)


def choose(
    pool: FileSplit, chosen: list[int], folder: Path, method: str, rng: np.random.Generator, step: int
) -> list[int]:
    """The next images, as places in the pool."""
    left = [place for place in range(len(pool)) if place not in set(chosen)]
    if method == "random":
        return rng.choice(left, min(step, len(left)), replace=False).tolist()  # type: ignore[no-any-return]
    paths = {pool.pairs[place].image: place for place in left}
    data = open_dataset(str(folder / "data"))
    labelled = replace(data, parts={"train": data.parts["train"]})
    segmenter = Segmenter(folder / "run/model.safetensors")
    return [paths[path] for path in select(segmenter, list(paths), labelled, count=step).paths]


def write_data(folder: Path, pool: FileSplit, test: FileSplit, chosen: list[int]) -> None:
    """A data set of masks whose images are links."""
    target = convert.Target(folder.absolute(), pool.label_space, ("train", "val"))
    parts = (("train", pool, chosen), ("val", test, range(len(test))))
    convert.write_masks(target, (sample for part in parts for sample in _samples(target, *part)))


def _samples(target: convert.Target, name: str, split: FileSplit, places: Iterable[int]) -> Iterator[convert.Converted]:
    for place in places:
        pair, labels = split.pairs[place], split.labels(place)
        file = target.images / name / f"{pair.name}{pair.image.suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.symlink_to(pair.image.absolute())
        yield convert.Converted(name, pair.name, file, (labels.shape[0], labels.shape[1]), labels, 0.0)


def lpsnet(*words: object) -> None:
    """Run a command; ends with its exit code if it fails, after its own message."""
    done = subprocess.run([sys.executable, "-m", "lpsnet", *map(str, words)], check=False, stdout=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(done.returncode)


def print_table(path: Path) -> None:
    """Mean mIoU over the seeds, a row a number of images."""
    found: dict[tuple[int, str], list[float]] = defaultdict(list)
    for line in path.read_text().splitlines():
        row = json.loads(line)
        for method in METHODS if row["method"] == "both" else (row["method"],):
            found[row["num_labelled"], method].append(row["miou"])
    print("images", *METHODS, "seeds")
    for count in sorted({count for count, _ in found}):
        scores = [found[count, method] for method in METHODS]
        print(
            count, *(f"{mean(each):.2f}" if each else "-" for each in scores), "/".join(str(len(it)) for it in scores)
        )


if __name__ == "__main__":
    main(sys.argv[1:])
