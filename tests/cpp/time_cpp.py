"""The C++ library's time for an image beside Python's, interleaved, on one thread; run by hand:

    python tests/cpp/time_cpp.py BUILD_FOLDER [RUNTIME [REPETITIONS]]

BUILD_FOLDER is where CMake built cpp/. Both run in this process with the same library of the engine, image by image:
Python, C++, Python, C++, … From the image in memory to its label map.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from cpp_library import Library

from lpsnet.data.synthetic import draw_scene
from lpsnet.inference.hub import find_model
from lpsnet.inference.segmenter import Segmenter

# model, the network's input, the image
CASES = (
    ("camvid_s", (96, 128), (96, 128)),
    ("camvid_s", (360, 480), (360, 480)),
    ("camvid_s", (360, 480), (480, 640)),
    ("camvid_s", (360, 480), (720, 960)),
    ("camvid_s", (360, 480), (240, 320)),
    ("cityscapes_m", (512, 1024), (512, 1024)),
    ("cityscapes_m", (512, 1024), (1024, 2048)),
)


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(folder: str, runtime: str = "openvino", repetitions: str = "60") -> None:
    cv2.setNumThreads(1)
    library = Library(next(Path(folder).glob("liblpsnet.*")))
    print("| model | input | image | Python ms | C++ ms | C++ / Python | quartiles |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for name, size, image_size in CASES:
        model = find_model(name)
        image, _ = draw_scene(np.random.default_rng(0), image_size)
        python = Segmenter(model, runtime=runtime, num_threads=1, input_size=size)
        ours = library.open(model, runtime, num_threads=1, input_size=size)
        assert np.array_equal(ours(image), python(image).labels)
        pairs = [
            (seconds(lambda p=python, i=image: p(i)), seconds(lambda o=ours, i=image: o(i)))
            for _ in range(int(repetitions) + 5)
        ][5:]
        by_python, by_cpp = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
        low, middle, high = statistics.quantiles(cpp / py for py, cpp in pairs)
        sizes = " | ".join(f"{height}x{width}" for height, width in (size, image_size))
        print(
            f"| {name} | {sizes} | {by_python:.2f} | {by_cpp:.2f} | {middle:.3f} | {low:.3f} to {high:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
