"""The plan of a fit: what it decides on data and times that are made up."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from lpsnet import fitting
from lpsnet.benchmark import tune as tuning
from lpsnet.benchmark.tune import Setting
from lpsnet.data.dataset import open_dataset
from lpsnet.data.synthetic import SceneSplit
from lpsnet.errors import DataError, LpsnetError, RunError
from lpsnet.fitting import plan as planning
from lpsnet.fitting import plan_in
from lpsnet.fitting.plan import Plan, Wish, make_plan
from lpsnet.models import encoders
from lpsnet.models.checkpoint import save_checkpoint
from lpsnet.models.encoders import Start
from lpsnet.models.network import create_model

SCENES = "scenes:size=48x64,num_train=6,num_val=3"
TIMES = {"small": 2.0, "middle": 5.0, "large": 9.0}


@pytest.fixture
def made_up(monkeypatch) -> None:
    """Three networks of known times; the machine is not measured."""
    text = "B=1,1,1,1,1;C=4,4,8,8,8;R={}"
    rows = [Start(name, text.format(ratio), "conv3x3", "", ratio) for name, ratio in zip(TIMES, (1, 2, 3), strict=True)]
    monkeypatch.setattr(planning, "STARTS", tuple(rows))
    monkeypatch.setattr(planning, "_setting", lambda *_: Setting("onnxruntime", "f32", 1))
    monkeypatch.setattr(planning, "_times", times)
    monkeypatch.setattr(planning, "_confirmed", lambda wish, files, order, best, found, *_: found)
    monkeypatch.setattr(planning, "_int8_times", lambda *args: dict.fromkeys(args[5:], 1.0))


INT8 = Setting("openvino", "int8", 1)


def times(files, candidates, best, *_) -> dict[str, float]:
    return {it.name: TIMES[it.name] * (0.4 if best == INT8 else 1.0) for it in candidates}


def wish(**values) -> Wish:
    return Wish(**{"data": SCENES, "budget_ms": 6.0, "minutes": 10.0, **values})


@pytest.mark.usefixtures("made_up")
def test_the_most_promising_network_within_the_budget_is_chosen(tmp_path: Path) -> None:
    for budget_ms, chosen in ((100.0, "large"), (9.0, "middle"), (5.4, "middle"), (5.2, "small")):
        plan = make_plan(wish(budget_ms=budget_ms), tmp_path)
        assert [choice.start for choice in plan.choices] == [chosen]
    assert plan.left_out == {"large": 9.0}


@pytest.mark.usefixtures("made_up")
def test_networks_that_would_see_too_few_images_are_left_out(tmp_path: Path, monkeypatch) -> None:
    """0.8 of a minute is 48 s, on two cores 96; at 0.2 s a billion and core: 2,400, 960 and 480 images."""
    costs = {"R=1;": 0.2e9, "R=2;": 0.5e9, "R=3;": 1e9}
    monkeypatch.setattr(planning, "_macs", lambda text, *_: next(it for key, it in costs.items() if key in f"{text};"))
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    for minutes, chosen, left_out in ((10.0, "large", 0), (1.5, "middle", 1), (1.0, "small", 2), (0.3, "small", 3)):
        plan = make_plan(wish(budget_ms=100.0, minutes=minutes), tmp_path)
        assert plan.choices[0].start == chosen
        found = [reason for reason in plan.reasons if reason.startswith("time: ")]
        assert [f"{left_out} of 3 networks" in reason for reason in found] == ([True] if left_out else [])
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert make_plan(wish(budget_ms=100.0, minutes=1.0), tmp_path).choices[0].start == "large"


@pytest.mark.parametrize(
    ("values", "int8_ms", "chosen", "precision"),
    [
        ({"budget_ms": 6.0}, 2.0, "large", "int8"),  # 9 ms in float32, 3.6 in int8
        ({"budget_ms": 3.0}, 2.0, "middle", "int8"),
        ({"budget_ms": 1.0}, 2.0, "small", "int8"),  # none is within the budget in float32
        ({"budget_ms": 2.5}, 4.9, "small", "f32"),  # hardly faster
        ({"budget_ms": 10.0}, 2.0, "large", "f32"),  # the best is within the budget as it is
        ({"budget_ms": 2.2}, 2.0, "middle", "int8"),
        ({"budget_ms": 6.0, "precision": "f32"}, 2.0, "middle", "f32"),  # as asked
        ({"budget_ms": 6.0, "start": "middle"}, 2.0, "middle", "f32"),
    ],
)
@pytest.mark.usefixtures("made_up")
def test_int8_is_planned_where_it_brings_a_better_network_into_the_budget(
    tmp_path: Path, monkeypatch, values, int8_ms: float, chosen: str, precision: str
) -> None:
    beside = {INT8: int8_ms, Setting("onnxruntime", "int8", 1): int8_ms + 1}
    monkeypatch.setattr(planning, "_int8_times", lambda *args: {**dict.fromkeys(args[5:], 5.0), **beside})
    plan = make_plan(wish(**values), tmp_path)
    assert (plan.choices[0].start, plan.precision) == (chosen, precision)
    assert plan.choices[0].latency_ms == TIMES[chosen] * (0.4 if precision == "int8" else 1.0)
    assert (plan.runtime == "openvino") == (precision == "int8")
    assert any("int8: faster here" in reason for reason in plan.reasons) == (precision == "int8")


def test_what_the_first_timing_met_in_a_quiet_moment_is_not_chosen(tmp_path: Path, monkeypatch) -> None:
    """Timed again, the largest takes 8 ms instead of 5, the middle one 4 instead of 4.5; the smallest is not timed."""
    rows = [
        Start(name, f"B=1,1,1,1,1;C=4,4,8,8,8;R={ratio}", "conv3x3", "", 0)
        for name, ratio in zip("abc", (3, 2, 1), strict=True)
    ]
    rows.insert(1, dataclasses.replace(rows[0], name="a2"))  # the same network with other weights
    again, timed = {"a": 8.0, "b": 4.0}, []
    monkeypatch.setattr(planning._Files, "open", lambda self, start, setting: None)
    monkeypatch.setattr(planning, "_timed_interleaved", lambda files, networks, *_: timed.extend(networks) or again)
    files = planning._Files(tmp_path, (48, 64), 8, planning.Channels())
    setting = Setting("onnxruntime", "f32", 1)
    first = {"a": 5.0, "a2": 5.0, "b": 4.5, "c": 2.0}
    found = planning._confirmed(wish(budget_ms=6.0), files, rows, setting, first, lambda *_: None)
    assert timed == ["a", "b"]
    assert found == {"a": 8.0, "a2": 8.0, "b": 4.5, "c": 2.0}
    assert planning._within(wish(budget_ms=6.0), rows, found, [])[0].start == "b"


def test_networks_are_timed_in_int8_by_every_engine_that_can(tmp_path: Path) -> None:
    start = Start("tiny", "B=1,1,1,1,1;C=4,4,8,8,8;R=1", "conv3x3", "", 0.1)
    files = planning._Files(tmp_path, (48, 64), 8, planning.Channels())
    best = Setting("onnxruntime", "f32", 1)
    found = planning._int8_times(wish(), files, start, 1, lambda *_: None, best)
    assert best in found
    assert all(time > 0 for time in found.values())
    engines = {setting.runtime for setting in found if setting.precision == "int8"}
    assert "onnxruntime" in engines <= {"onnxruntime", "openvino"}
    only = planning._int8_times(wish(runtime="onnxruntime"), files, start, 1, lambda *_: None)
    assert list(only) == [Setting("onnxruntime", "int8", 1)]
    with pytest.raises(RunError, match="int8 is not possible here: ncnn does not run it"):
        planning._int8_times(wish(runtime="ncnn"), files, start, 1, lambda *_: None)


def test_a_wish_is_said_again_by_its_options() -> None:
    made = wish(size=(48, 64), precision="bf16", teacher="camvid_s", seed=3)
    words = fitting.options_of(made)
    pairs = dict(zip(words[::2], words[1::2], strict=True))
    assert pairs == {
        "--budget-ms": "6",
        "--minutes": "10",
        "--size": "48x64",
        "--precision": "bf16",
        "--teacher": "camvid_s",
        "--seed": "3",
    }


def test_values_that_cannot_be_are_refused_in_a_line() -> None:
    with pytest.raises(RunError, match=r"precision 'b16'.*'bf16'"):
        fitting.wish_of(data="scenes", budget_ms=5.0, precision="b16")
    with pytest.raises(RunError, match=r"^budget_ms: "):
        fitting.wish_of(data="scenes", budget_ms="many")


@pytest.mark.usefixtures("made_up")
def test_a_budget_for_no_network_says_how_far_away_it_is(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"small, takes 2\.0 ms .* more than 94% of 2 ms"):
        make_plan(wish(budget_ms=2.0), tmp_path)


@pytest.mark.parametrize("budget_ms", [1.0, 3.0, 7.9, 8.1, 20.0, 55.0, 300.0])
@pytest.mark.parametrize("bend", [1.0, 0.6, 1.6])
def test_few_networks_are_timed_and_none_that_matters_is_left_out(budget_ms: float, bend: float) -> None:
    """Times grow with cost, but not in proportion: a fixed part, and a bend the line does not know."""
    costs = {f"n{number}": 1.25**number for number in range(24)}
    true = {name: 2 + cost**bend for name, cost in costs.items()}
    asked: list[str] = []

    def time_some(names):
        asked.extend(names)
        return {name: true[name] for name in names}

    found = tuning.times_near(costs, budget_ms, time_some)
    assert len(asked) == len(set(asked)) == len(found)
    allowed = [name for name, time in true.items() if time <= budget_ms]
    if allowed:
        assert max(allowed, key=costs.__getitem__) in found  # the dearest within the budget is known
    assert len(found) <= (17 if bend == 1.6 else 13)


def test_a_time_that_other_work_disturbed_is_that_of_a_dearer_network() -> None:
    times = {"a": 1.0, "b": 9.0, "c": 3.0, "d": 4.0}
    costs = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    found = tuning.times_near(costs, 3.5, lambda names: {name: times[name] for name in names})
    assert found == {"a": 1.0, "b": 3.0, "c": 3.0, "d": 4.0}


def test_the_most_promising_that_surely_fit_are_timed_too() -> None:
    """All are far below the budget: without a wish only three would be known."""
    costs = {f"n{number}": float(number + 1) for number in range(9)}
    asked: list[str] = []

    def time_some(names):
        asked.extend(names)
        return {name: costs[name] for name in names}

    tuning.times_near(costs, 100.0, time_some, wanted=["n6", "n8", "n1"])
    assert sorted(asked) == ["n0", "n4", "n6", "n8"]
    found = tuning.times_near(costs, 5.0, time_some, wanted=["n8", "n2", "n0", "n1"])  # "n8" is over the budget
    assert {"n0", "n2"} <= set(found)


def test_one_network_is_timed_once() -> None:
    assert tuning.times_near({"a": 5.0}, 10.0, lambda names: dict.fromkeys(names, 1.0)) == {"a": 1.0}


@pytest.mark.usefixtures("made_up")
def test_memory_leaves_networks_out(tmp_path: Path, monkeypatch) -> None:
    needs = {"1": 10.0, "2": 20.0, "3": 40.0}  # MiB by the ratio of the path
    monkeypatch.setattr(planning, "inference_memory_mib", lambda network, **_: needs[str(network.ratios[0])])
    for memory_mib, chosen in ((None, "large"), (40.0, "large"), (39.0, "middle"), (10.0, "small")):
        plan = make_plan(wish(budget_ms=100.0, memory_mib=memory_mib), tmp_path)
        assert plan.choices[0].start == chosen
    with pytest.raises(RunError, match=r"small, takes 10\.0 MiB at 48x64, more than 9 MiB"):
        make_plan(wish(memory_mib=9.0), tmp_path)


@pytest.mark.usefixtures("made_up")
def test_a_teacher_is_looked_for_before_anything_long(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(planning, "_data", lambda *_: pytest.fail("the data is read after the wish was checked"))
    for values, message in (
        ({"unlabelled": str(tmp_path)}, "give --unlabelled with --teacher"),
        ({"teacher": "camvid_s", "unlabelled": str(tmp_path / "no")}, "there is no folder .*no; --unlabelled is"),
        ({"teacher": "camvid_x"}, "camvid_x"),
    ):
        with pytest.raises(LpsnetError, match=message):
            plan_in(tmp_path / "fit", wish(**values))
    assert not (tmp_path / "fit").exists()


@pytest.mark.usefixtures("made_up")
def test_a_teacher_takes_part_in_every_training(tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.safetensors"
    save_checkpoint(create_model("B=1,1,1,1,1;C=4,4,4,4,4;R=1", num_classes=8), teacher)
    plan = make_plan(wish(teacher=str(teacher), unlabelled=str(tmp_path)), tmp_path / "fit")
    run = fitting._run(plan, plan.choices[0], 1.0)
    assert (run.teacher, run.unlabelled) == (teacher, tmp_path)
    assert (
        f"teacher: the network learns {teacher}'s probabilities on these images and on {tmp_path}, too" in plan.reasons
    )


@pytest.mark.usefixtures("made_up")
def test_the_minutes_add_up(tmp_path: Path) -> None:
    for minutes in (5.0, 30.0, 60.0, 240.0):
        plan = make_plan(wish(minutes=minutes), tmp_path)
        contest = plan.contest_minutes * len(plan.choices) if plan.contest_minutes else 0
        assert (contest > 0) == (minutes >= 40)
        spent = plan.planning_minutes + contest + plan.training_minutes + planning.delivery_minutes(minutes)
        assert spent == pytest.approx(minutes)
        assert plan.training_recipe(plan.training_minutes).minutes == plan.training_minutes


@pytest.mark.usefixtures("made_up")
def test_a_plan_is_kept_and_only_its_minutes_change(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, wish())
    assert Plan.read(tmp_path / fitting.PLAN) == plan
    assert plan_in(tmp_path, wish()) == plan
    assert fitting.planned_minutes(tmp_path) == 10.0
    assert fitting.planned_minutes(tmp_path / "no") is None
    more = plan_in(tmp_path, wish(minutes=20.0))
    assert more.training_minutes > plan.training_minutes + 8
    assert more.choices == plan.choices
    with pytest.raises(RunError, match=r"budget_ms = 6\.0, not 7\.0"):
        plan_in(tmp_path, wish(budget_ms=7.0))
    (tmp_path / fitting.PLAN).write_text("{")
    with pytest.raises(RunError, match="holds no plan"):
        plan_in(tmp_path, wish())


@pytest.mark.usefixtures("made_up")
def test_an_unknown_start_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(LpsnetError, match="middle"):
        make_plan(wish(start="midle"), tmp_path)
    assert make_plan(wish(start="small"), tmp_path).choices[0].start == "small"


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), array)


def folder_of(root: Path, count: int) -> None:
    """Images and masks of two classes side by side, without splits."""
    for number in range(count):
        rng = np.random.default_rng(number)
        write(root / "images" / f"{number:02}.png", rng.integers(0, 255, (48, 64, 3), np.uint8))
        write(root / "masks" / f"{number:02}.png", (np.arange(64) >= 20 + number).astype(np.uint8)[None].repeat(48, 0))


@pytest.mark.usefixtures("made_up")
def test_a_folder_without_a_validation_split_gets_one(tmp_path: Path) -> None:
    folder_of(tmp_path / "photos", 10)
    plan = make_plan(wish(data=str(tmp_path / "photos")), tmp_path)
    assert (plan.num_train, plan.num_val) == (8, 2)
    assert plan.data == str(tmp_path / "data.yaml")
    assert "val_fraction: 0.2" in (tmp_path / "data.yaml").read_text()
    assert any("for judging" in reason for reason in plan.reasons)


@pytest.mark.usefixtures("made_up")
def test_errors_of_the_data_stop_it_in_one_line(tmp_path: Path) -> None:
    folder_of(tmp_path / "photos", 10)
    write(tmp_path / "photos" / "masks" / "03.png", np.zeros((10, 10), np.uint8))
    (tmp_path / "photos" / "masks" / "04.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"and \d more errors.*lpsnet data check") as caught:
        make_plan(wish(data=str(tmp_path / "photos")), tmp_path)
    assert "\n" not in str(caught.value)


def test_every_start_is_a_network_with_an_encoder_for_its_blocks() -> None:
    assert len({start.name for start in planning.STARTS}) == len(planning.STARTS)
    for start in planning.STARTS:
        encoder = encoders.find_encoder(start.encoder)
        assert encoder.block == start.block
        own = planning.create_model(start.network, block=start.block, form="plain").architecture
        assert own.widths == encoders.get_architecture(encoder.architecture).widths


@pytest.fixture
def known_streets(tmp_path: Path, monkeypatch) -> Start:
    """A start with a checkpoint that knows three classes."""
    from lpsnet.data.labels import LabelSpace
    from lpsnet.models.checkpoint import default_record, save_checkpoint

    text = "B=1,1,1,1,1;C=4,4,8,8,8;R=1"
    net = planning.create_model(text, num_classes=3)
    space = LabelSpace.from_names("mine", ["road", "sidewalk", "traffic sign"])
    record = default_record(net, label_space=space).model_copy(update={"licence": "for research"})
    save_checkpoint(net, tmp_path / "known.safetensors", record=record)
    monkeypatch.setattr(encoders, "starts_folder", lambda: tmp_path)
    return Start("streets", text, "conv3x3", "", 0.1, weights="known")


def test_weights_are_known_by_what_they_see_and_not_by_names(tmp_path: Path, monkeypatch) -> None:
    """Street scenes whose classes are called otherwise, and the same images with labels of others."""
    scenes = SceneSplit(size=(96, 128), count=8, seed=0, name="train")
    for folder, move in (("images", 0), ("masks", 0), ("odd", 3)):
        (tmp_path / folder).mkdir()
        for number in range(8):
            image, labels = scenes.image(number)[..., ::-1], scenes.labels((number + move) % 8)
            cv2.imwrite(str(tmp_path / folder / f"{number}.png"), image if folder == "images" else labels)
    found = {}
    for masks in ("masks", "odd"):
        text = f"path: .\nnames: [a, b, c, d, e, f, g, h]\nimages: images\nmasks: {masks}\n"
        (tmp_path / "own.yaml").write_text(text)
        split = next(iter(open_dataset(tmp_path / "own.yaml").parts.values()))
        (found[masks],) = planning._agreements(split, (96, 128), encoders.STARTS).values()
    assert found["masks"] > encoders.MIN_AGREEMENT > found["odd"] + 0.1
    assert planning._agreements(split, (96, 128), [it for it in encoders.STARTS if not it.weights]) == {}


def test_agreement_is_by_the_best_names_for_what_is_seen() -> None:
    """Of 8 labelled pixels 4 are of the most frequent class; by the best names for 0, 1 and 5 seven are right."""
    labels = np.array([[0, 0, 0, 0, 1, 1, 2, 2, 255]], np.uint8)
    seen = np.array([[5, 5, 5, 1, 1, 1, 0, 0, 0]], np.uint8)
    found = encoders.agreement(lambda image: seen, [(np.zeros((1, 9, 3), np.uint8), labels)], 3)
    assert found == pytest.approx((7 - 4) / (8 - 4))
    assert encoders.agreement(lambda image: seen, [(np.zeros((1, 9, 3), np.uint8), labels * 0)], 3) == 0.0


@pytest.mark.parametrize(("agreement", "order"), [(0.7, ["streets", "plain"]), (0.5, ["plain", "streets"])])
def test_the_same_network_with_other_weights_is_the_rival(
    known_streets: Start, monkeypatch, agreement: float, order: list[str]
) -> None:
    assert "known" in known_streets.origin
    assert known_streets.terms == "for research"
    plain = Start("plain", known_streets.architecture, "conv3x3", "", 0.1)
    other = Start("other", "B=1,1,1,1,1;C=4,4,8,8,8;R=1/2", "conv3x3", "", 0.05)
    monkeypatch.setattr(planning, "STARTS", (plain, other, known_streets))
    times = {"plain": 1.0, "other": 1.0, "streets": 1.0}
    reasons: list[str] = []
    choices = planning._within(wish(), planning._by_promise(planning.STARTS, {"known": agreement}), times, reasons)
    assert [choice.start for choice in choices] == [*order, "other"]
    assert any("for research" in reason for reason in reasons) == (order[0] == "streets")
