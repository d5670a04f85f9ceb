"""A grown network against the paper's: which step is its rival, what is concluded, and a tiny run of it all."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from lpsnet.architecture import get_architecture
from lpsnet.errors import RunError
from lpsnet.export.onnx import export_onnx
from lpsnet.models.checkpoint import default_record
from lpsnet.models.network import create_model
from lpsnet.models.profile import complexity
from lpsnet.models.reparameterise import fuse
from lpsnet.studies import network_training, paper_networks
from lpsnet.studies.network_latency import StudyNetwork
from lpsnet.studies.network_training import schedule_of
from lpsnet.studies.paper_networks import networks
from lpsnet.studies.running import find_study, run_study
from lpsnet.studies.study import Settings

DATA = "scenes:size=48x64,num_train=4,num_val=2"


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    for step, text in ((0, "tiny"), (2, "B=1,1,1,1,1;C=4,4,8,8,8;R=1"), (1, "tiny")):
        net = create_model(get_architecture(text), num_classes=8)
        path = folder / f"step_{step}.onnx"
        export_onnx(fuse(net.eval()), path, record=default_record(net), size=(48, 64))
    (folder / "candidate_0.onnx").touch()
    return folder


def test_the_last_step_is_the_grown_network(family: Path, tmp_path: Path) -> None:
    assert paper_networks._model(family).name == "step_2.onnx"
    assert paper_networks._model(family / "step_1.onnx").name == "step_1.onnx"
    for path, says in ((None, "needs a network that was grown"), (tmp_path, "holds no step_N.onnx")):
        with pytest.raises(RunError, match=says):
            paper_networks._model(path)


def test_the_rival_is_the_step_of_the_nearest_latency() -> None:
    names = ("grown", "step 0", "step 1", "step 2")
    times = {"grown": [2.0, 2.1, 9.0], "step 0": [1.0, 1.0, 1.0], "step 1": [2.5, 2.4, 2.6], "step 2": [1.0, 4.0, 9.9]}
    timed = {"results": [{"name": name, "turn_medians_ms": times[name]} for name in names]}
    candidates = [SimpleNamespace(name=name) for name in names]
    assert paper_networks._rival(timed, candidates).name == "step 1", "medians 2.1 against 1.0, 2.5 and 4.0"
    assert paper_networks._rival(None, candidates).name == "step 2"


def test_steps_as_large_as_the_grown_network_are_measured_with_it() -> None:
    """By multiplications, as `complexity` counts them: a tenth of step 14's are about those of step 8."""
    steps = networks(paper_networks.NUM_STEPS["paper"])
    assert [it.name for it in paper_networks._as_large(steps[0], steps)] == [f"step {n}" for n in range(7)]
    assert [it.name for it in paper_networks._as_large(steps[14], steps)] == [f"step {n}" for n in range(8, 15)]
    ours = StudyNetwork("grown", get_architecture("B=1,2,2,2,2;C=8,24,48,96,96;R=9/8,1/2"))
    macs = {it.name: complexity(it.architecture).macs / complexity(ours.architecture).macs for it in steps}
    chosen = {it.name for it in paper_networks._as_large(ours, steps)}
    far = min(max(share, 1 / share) for name, share in macs.items() if name not in chosen)
    assert len(chosen) == paper_networks.NUM_TIMED
    assert all(max(macs[name], 1 / macs[name]) <= far for name in chosen)


def _row(network: str, miou: float, deviation: float | None, seeds: int = 3) -> dict[str, object]:
    ratio = {"times_grown": 1.02, "times_grown_low": 1.0, "times_grown_high": 1.05}
    return {"network": network, "miou": miou, "miou_deviation": deviation, "median_ms": 4.0, "seeds": seeds, **ratio}


@pytest.mark.parametrize(
    ("ours", "theirs", "deviation", "says"),
    [
        (50.0, 48.0, 0.5, "2.00 above step 5 of the paper with 48.00 at 4 ms, which is more than both spreads"),
        (48.0, 50.0, 0.5, "2.00 below step 5 of the paper with 50.00 at 4 ms, which is more than both spreads"),
        (50.0, 49.5, 0.5, "0.50 above step 5 of the paper with 49.50 at 4 ms, which is not more than both spreads"),
        (50.0, 49.5, None, "with one seed."),
    ],
)
def test_what_is_concluded(ours: float, theirs: float, deviation: float | None, says: str) -> None:
    (finding,) = paper_networks._grown_findings([_row("grown", ours, deviation), _row("step 5", theirs, deviation)])
    assert says in finding
    assert "1.020 times as long (1.000 to 1.050)" in finding


@pytest.mark.slow
def test_from_end_to_end(family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = {"iterations": 2, "batch_size": 2, "num_workers": 1}
    schedule = schedule_of(Settings(), DATA, halved=False)
    schedule = replace(schedule, recipe=schedule.recipe.with_overrides(short))
    monkeypatch.setattr(network_training, "schedule_of", lambda settings, data, halved=True: schedule)
    monkeypatch.setitem(paper_networks.NUM_STEPS, "paper", 2)
    monkeypatch.setattr("lpsnet.studies.network_latency.TIMING", {"small": "quick"})
    settings = Settings(data=(DATA,), models=family, num_seeds=2, num_threads=1)
    result = run_study(find_study("grown"), settings, tmp_path)
    rows = {row["network"]: row for row in result.report.rows}
    assert rows.keys() == {"grown", "step 0", "step 1"}
    assert sum(row["seeds"] == 2 for row in rows.values()) == 2
    assert "The grown network has" in result.files[0].read_text()
    assert run_study(find_study("grown"), settings, tmp_path).num_kept == len(rows) + 4
