"""What studies of single blocks have in common: their runs, and how they differ from the paper's measurements."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from lpsnet.benchmark.timing import PROTOCOLS, TimingProtocol
from lpsnet.studies.block_timing import NUM_STACKED, Case, check_runtime, time_blocks
from lpsnet.studies.study import Json, Outcome, Place, Run, Scale, Settings

# The widest stacks take a tenth of a second: 4 s are some thirty rounds of them, enough to see past a noisy machine
TIMING: Mapping[Scale, TimingProtocol] = {
    "small": TimingProtocol(warm_up_s=0.3, duration_s=4.0),
    "paper": PROTOCOLS["paper"],
}

DIFFERENCES = (
    "The device is this one and the engine is named; the paper measured on a GTX 1070 Ti.",
    (
        f"The time is that of {NUM_STACKED} equal blocks in a row, divided by {NUM_STACKED}, so that neither a call "
        "nor a change of layout at the border counts; the paper does not say how it measured single convolutions."
    ),
    "Blocks are as in a deployed network, with bias and ReLU; the paper's figure leaves out activations.",
    "FLOPs are multiply-accumulates, as in all of the paper's figures.",
)


def block_run(name: str, cases: Sequence[Case], runtime: str, settings: Settings) -> Run:
    """A run that times cases in turn by an engine, with the timing that belongs to the scale.

    Raises:
        RunError: the study cannot use that engine.
    """
    check_runtime(runtime)
    protocol = TIMING[settings.scale]
    key = {
        "measured": name,
        "cases": [case.name for case in cases],
        "size": list(cases[0].size),
        "num_stacked": NUM_STACKED,
        "runtime": runtime,
        "precision": settings.precision,
        "num_threads": settings.num_threads,
        "protocol": asdict(protocol),
    }

    def work(place: Place) -> dict[str, Json]:
        return time_blocks(
            cases,
            runtime=runtime,
            precision=settings.precision,
            num_threads=settings.num_threads,
            protocol=protocol,
            progress=place.progress,
        )

    return Run(key, work)


def engine_of(outcome: Outcome) -> str:
    """`onnxruntime f32`."""
    return f"{outcome.key['runtime']} {outcome.result['precision']}"
