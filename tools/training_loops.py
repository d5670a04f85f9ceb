"""How long a training step takes with the compiled loops of `models/training_kernels.py`, and with torch alone.

    python tools/training_loops.py --arch lite0 --size 256x512 --batch 8 --threads 1

Forward and backward pass in bfloat16 on random images, interleaved: the loops in memory that is kept, the loops alone,
torch alone. Prints the least and the median time of each in milliseconds of the process (`time.process_time`, summed
over threads), which other work on the machine disturbs less than the clock's.
"""

import argparse
import contextlib
import time
from collections.abc import Callable
from statistics import median
from unittest import mock

import torch

from lpsnet import create_model
from lpsnet.architecture import default_block
from lpsnet.models import training_kernels
from lpsnet.models.training_kernels import find_library, kept_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", action="append", help="several times; default: lite0")
    parser.add_argument("--size", default="256x512", help="HEIGHTxWIDTH of the images")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if find_library() is None:
        raise SystemExit("the loops are not compiled here: python build_kernels.py")
    height, width = map(int, given.size.split("x"))
    images = torch.randn(given.batch, 3, height, width).contiguous(memory_format=torch.channels_last)
    for arch in given.arch or ["lite0"]:
        net = create_model(arch, num_classes=19, block=default_block(arch), form="plain").train()
        step = _step_of(net.to(memory_format=torch.channels_last), images)  # type: ignore[call-overload]
        for name, times in _timed(step, given.rounds).items():
            print(f"{arch}, {name}: least {1e3 * min(times):.0f} ms, median {1e3 * median(times):.0f} ms")


def _step_of(net: torch.nn.Module, images: torch.Tensor) -> Callable[[], None]:
    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(images)
        logits.float().square().mean().backward()

    return step


def _timed(step: Callable[[], None], rounds: int) -> dict[str, list[float]]:
    ways = {
        "loops, memory kept": (find_library(), kept_memory),
        "loops": (find_library(), contextlib.nullcontext),
        "torch": (None, contextlib.nullcontext),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (library, memory) in ways.items():
            with mock.patch.object(training_kernels, "find_library", lambda library=library: library), memory():
                step()  # memory is there
                begun = time.process_time()
                step()
                times[name].append(time.process_time() - begun)
    return times


if __name__ == "__main__":
    main()
