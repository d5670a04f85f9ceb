"""What `lpsnet benchmark` is given by name, model files, models of the package or architectures, as files to time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from lpsnet.architecture import Architecture, get_architecture, list_architectures
from lpsnet.benchmark.benchmark import Candidate
from lpsnet.errors import LpsnetError, unknown_name
from lpsnet.inference.hub import find_model, list_models
from lpsnet.inference.model_file import find_record
from lpsnet.inference.segmenter import DEFAULT_RUNTIMES

if TYPE_CHECKING:
    from lpsnet.inference.engines import Precision


Size = tuple[int, int]
Source = Path | Architecture

PAPER_SIZE = (1024, 2048)  # of the paper's latencies, for architectures
DEFAULT_RUNTIME = "onnxruntime"  # for architectures
NUM_SCENES = 2  # to calibrate untrained networks in int8 on
_CHECKPOINT = ".safetensors"


def find_sources(models: Sequence[str]) -> dict[str, Source]:
    """What each of `models` is, by a name of its own: a file's name, or its path where two have the same name.

    Raises:
        LpsnetError: one is neither a file, a model of the package nor an architecture, or is given twice.
    """
    sources = {model: _source(model) for model in models}
    if len(sources) < len(models):
        twice = next(model for model, count in Counter(models).items() if count > 1)
        raise LpsnetError(f"{twice} is given twice; give every model once")
    short = {model: source.name if isinstance(source, Path) else model for model, source in sources.items()}
    count = Counter(short.values())
    return {short[model] if count[short[model]] == 1 else model: source for model, source in sources.items()}


def common_size(sources: Sequence[Source]) -> Size:
    """The size that the records of files name, or the paper's for architectures alone.

    Raises:
        LpsnetError: they name none, or several.
    """
    files = [source for source in sources if isinstance(source, Path)]
    records = [find_record(path) for path in files]
    sizes = {record.input_size for record in records if record is not None and record.input_size is not None}
    if len(sizes) > 1 or (not sizes and files):
        named = " and ".join(f"{height}x{width}" for height, width in sorted(sizes)) or "no input size"
        raise LpsnetError(f"the models name {named}; say at what size to measure: --size HxW")
    return sizes.pop() if sizes else PAPER_SIZE


@dataclass
class CandidateMaker:
    """Makes candidates, and the files for engines that cannot read what there is.

    Attributes:
        folder: where files are made.
        size: (height, width) in pixels that they are for.
    """

    folder: Path
    size: Size

    def make(
        self, sources: dict[str, Source], runtimes: Sequence[str], precisions: "Sequence[Precision]"
    ) -> list[Candidate]:
        """Every source by every engine in every precision; without engines each by its usual one."""
        cells = []
        for number, (name, source) in enumerate(sources.items()):
            for runtime, precision in product(runtimes or [_usual_runtime(source)], precisions):
                path = self._file(source, f"model_{number}", runtime)
                if precision == "int8" and isinstance(source, Architecture):
                    path = self._quantised(path, runtime)
                cells.append(Candidate(name, path, runtime, precision, macs=self._macs(source)))
        return cells

    def _file(self, source: Source, name: str, runtime: str) -> Path:
        if isinstance(source, Path) and (source.suffix.lower() != _CHECKPOINT or runtime.startswith("pytorch")):
            return source
        made = self.folder / runtime
        if not made.exists():
            made.mkdir()
        if existing := list(made.glob(f"{name}.*")):
            return existing[0]
        from lpsnet.export.export import checkpoint_for_runtime, untrained_for_runtime

        if isinstance(source, Path):
            return checkpoint_for_runtime(source, made, name, runtime=runtime, size=self.size)
        return untrained_for_runtime(source, made, name, runtime=runtime, size=self.size)

    def _quantised(self, whole: Path, runtime: str) -> Path:
        """The same in int8, calibrated on generated scenes: its weights are random, and so is what it says of them."""
        from lpsnet.data.split import Pictures
        from lpsnet.data.synthetic import SceneSplit
        from lpsnet.export.export import QUANTISERS, quantise_file
        from lpsnet.export.quantise import Quantisation
        from lpsnet.inference.model_file import read_record

        if runtime not in QUANTISERS:
            return whole  # which the engine will refuse, and say why
        scenes = Quantisation(Pictures(SceneSplit(size=self.size, count=NUM_SCENES, seed=0, name="calibration")))
        record, folder = read_record(whole), whole.parent
        return quantise_file(whole, runtime=runtime, quantisation=scenes, record=record, size=self.size, folder=folder)

    def _macs(self, source: Source) -> int | None:
        """Multiply-accumulates at the size measured; None where nobody knows: for other programs' files, or without
        torch, which counts them."""
        record = find_record(source) if isinstance(source, Path) else None
        architecture = source if isinstance(source, Architecture) else None if record is None else record.architecture
        if architecture is None:
            return None
        try:
            from lpsnet.models.profile import complexity
        except ModuleNotFoundError:
            return None
        choices = {} if record is None else {"block": record.block, "interaction": record.interaction}
        num_classes = 19 if record is None else record.label_space.num_classes
        return complexity(architecture, size=self.size, num_classes=num_classes, **choices).macs


def _source(model: str) -> Source:
    if model in list_architectures() or "=" in model:
        return get_architecture(model)
    try:
        return find_model(model)
    except LpsnetError as error:
        if "/" in model or "\\" in model or "." in model:
            raise
        if not list_models():
            raise LpsnetError(f"{error}; {unknown_name('architecture', model, list_architectures())}") from None
        names = [*list_models(), *list_architectures()]
        raise LpsnetError(f"{unknown_name('model or architecture', model, names)}, or a model file") from None


def _usual_runtime(source: Source) -> str:
    return DEFAULT_RUNTIMES[source.suffix.lower()] if isinstance(source, Path) else DEFAULT_RUNTIME
