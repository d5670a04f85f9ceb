"""What `lpsnet report` is given: the files of runs, altered or damaged; it writes a page or says why not."""

import functools
import json
from pathlib import Path
from typing import Any

from command_targets import check
from damage import altered, damaged
from fuzzing import Target
from hypothesis import strategies as st
from run_targets import journal_bytes

from lpsnet.data.dataset import open_dataset
from lpsnet.evaluation.evaluate import evaluate

_DATA = "scenes:size=32x48,num_train=1,num_val=2"
_MARK = "<script>alert(1)</script>"
_LATENCY = {
    "median_ms": 1.5,
    "median_interval_ms": [1.0, 2.0],
    "median_interval_confidence": 0.75,
    "mean_ms": 1.5,
    "p90_ms": 1.9,
    "min_ms": 1.0,
    "iqr_ms": 0.5,
    "num_samples": 4,
    "num_rounds": 2,
    "turns_ms": [[1.0, 1.4], [1.6, 2.0]],
}
_RESULT = {
    "model": _MARK,
    "path": "m.onnx",
    "runtime": "ncnn",
    "engine": "ncnn 1",
    "precision": "f32",
    "num_threads": 1,
    "num_bytes": 1000,
    "macs": 10**9,
    "gmacs_per_ms": 0.7,
    "times_as_fast_as_first": None,
    "network": _LATENCY,
    "end_to_end": _LATENCY,
    "peak_memory_mib": None,
    "miou": 50.0,
}
_BENCHMARK = {
    "size": [32, 48],
    "protocol": "quick",
    "picture": _MARK,
    "results": [_RESULT],
    "comparisons": [],
    "warnings": [_MARK],
    "problems": [],
    "machine": {},
    "load": {},
    "date": "",
    "command": _MARK,
}
_STUDY = {"study": "widths", "findings": [_MARK], "rows": [{"width": 8, "median_ms": 1.5}], "command": ""}


@functools.cache
def _evaluation() -> Any:
    split = open_dataset(_DATA).split("val")
    labels = iter([split.labels(0), split.labels(1)])
    found = evaluate(lambda image: next(labels), split, protocol={"data": _DATA, "model": _MARK})
    return json.loads(json.dumps({**found.to_dict(), "command": _MARK}))


def _report(name: str, content: bytes, folder: Path) -> None:
    (folder / name).write_bytes(content)
    check("report", folder, "--out", folder / "page.html")
    if (folder / "page.html").exists():
        assert _MARK not in (folder / "page.html").read_text(encoding="utf-8"), "a name in a file is run by the browser"


def _report_on_figures(value: Any, folder: Path) -> None:
    _report("figures.json", json.dumps(value).encode(), folder)


def _report_on_journal(content: bytes, folder: Path) -> None:
    _report("journal.jsonl", content, folder)


def _report_on_run(case: tuple[Any, bytes], folder: Path) -> None:
    (folder / "log.csv").write_bytes(case[1])
    _report("run.json", json.dumps(case[0]).encode(), folder)


_RUN = {"data": _MARK, "split": "train", "architecture": "B=1,1,1,1,1;C=4,4,8,8,8;R=1", "recipe": {"name": "demo"}}
_LOG = b"iteration,loss,learning_rate,pictures_per_second\n1,0.5,0.1,10\n2,0.25,0.1,10\n3,0.2,0.1,1\n"
_FIGURES = st.deferred(lambda: altered([_evaluation(), _evaluation(), _BENCHMARK, _STUDY]))
_RUNS = st.tuples(altered([_RUN]), damaged([_LOG]) | st.just(_LOG))

TARGETS = (
    Target("report on figures", _FIGURES, _report_on_figures, many=600, few=8),
    Target("report on a journal", st.deferred(lambda: damaged([journal_bytes()])), _report_on_journal, many=400, few=8),
    Target("report on a run", _RUNS, _report_on_run, many=500, few=8),
)
