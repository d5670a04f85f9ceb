"""Official checkpoints against a forward pass written from design-notes on the raw state dict, without our network."""

import pickle
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lpsnet.errors import ArchitectureError, LpsnetError, ModelFileError
from lpsnet.models.checkpoint import load_official_checkpoint, official_state_dict
from lpsnet.models.network import create_model
from lpsnet.models.reparameterise import fuse

State = dict[str, Tensor]
BLOCKS, WIDTHS = (1, 2, 1, 2, 1), (4, 6, 5, 8, 7)
PATHS = {1: ["net"], 2: ["netH", "netL"], 3: ["net1", "net2", "net3"], 4: ["net1", "net2", "net3", "net4"]}
RATIOS = {1: ("1/2",), 2: ("3/4", "1/4"), 3: ("1", "1/2", "1/4"), 4: ("5/4", "1", "1/2", "1/3")}


def official_state(num_paths: int, *, training_form: bool = False, num_classes: int = 5) -> State:
    """A random state dict in the format of design-notes, 'Official checkpoint layout'."""
    state: State = {}
    for net in PATHS[num_paths]:
        before = 3
        for stage, (count, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True)):
            for block in range(count):
                name = f"{net}.stages.{stage}.{block}"
                state[f"{name}.0.weight"] = torch.randn(width, before, 3, 3) * (2 / (9 * before)) ** 0.5
                if training_form:
                    state[f"{name}.1.weight"] = torch.rand(width) + 0.5
                    state[f"{name}.1.bias"] = torch.randn(width) * 0.3
                    state[f"{name}.1.running_mean"] = torch.randn(width) * 0.3
                    state[f"{name}.1.running_var"] = torch.rand(width) + 0.5
                    state[f"{name}.1.num_batches_tracked"] = torch.tensor(7)
                else:
                    state[f"{name}.0.bias"] = torch.randn(width) * 0.3
                before = width
    state["head.weight"] = torch.randn(num_classes, num_paths * WIDTHS[-1], 1, 1)
    state["head.bias"] = torch.randn(num_classes)
    return state


def block_of(state: State, name: str, x: Tensor, stride: int) -> Tensor:
    x = F.conv2d(x, state[f"{name}.0.weight"], state.get(f"{name}.0.bias"), stride=stride, padding=1)
    if f"{name}.1.weight" in state:
        mean, var, weight, bias = (state[f"{name}.1.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, mean, var, weight, bias)
    return F.relu(x)


def to(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def forward(state: State, image: Tensor, ratios: tuple[str, ...]) -> Tensor:
    """Section 3.1 and design-notes, 'The network', on raw tensors."""
    height, width = image.shape[2:]
    x = [to(image, (int(height * Fraction(r)), int(width * Fraction(r)))) for r in ratios]
    for stage, count in enumerate(BLOCKS):
        for path, net in enumerate(PATHS[len(ratios)]):
            for block in range(count):
                x[path] = block_of(
                    state, f"{net}.stages.{stage}.{block}", x[path], 2 if block == 0 and stage < 4 else 1
                )
        if stage in (2, 3):
            x = [sum((to(b, a.shape[2:]) for b in x if b is not a), start=a) for a in x]
    features = torch.cat([to(a, x[0].shape[2:]) for a in x], dim=1)
    return F.conv2d(features, state["head.weight"], state["head.bias"])


def saved(content: object, folder: Path) -> Path:
    torch.save(content, folder / "official.pth")
    return folder / "official.pth"


@pytest.mark.parametrize("training_form", [False, True], ids=["deployed", "training"])
@pytest.mark.parametrize("num_paths", PATHS)
def test_scores_are_those_of_the_official_network(num_paths: int, training_form: bool, tmp_path: Path) -> None:
    state = official_state(num_paths, training_form=training_form)
    net = load_official_checkpoint(saved(state, tmp_path), ratios=RATIOS[num_paths])
    assert (net.architecture.blocks, net.architecture.widths, net.num_classes) == (BLOCKS, WIDTHS, 5)
    assert net.architecture.ratios == tuple(map(Fraction, RATIOS[num_paths]))
    assert net.form == ("plain" if training_form else "deployed")
    assert not net.training
    for size in ((64, 96), (65, 99)):
        image = torch.randn(2, 3, *size)
        expected = forward(state, image, RATIOS[num_paths])
        torch.testing.assert_close(net(image), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(fuse(net)(image), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training_form", [False, True], ids=["deployed", "training"])
@pytest.mark.parametrize("num_paths", PATHS)
def test_names_and_values_go_there_and_back(num_paths: int, training_form: bool, tmp_path: Path) -> None:
    state = official_state(num_paths, training_form=training_form)
    back = official_state_dict(load_official_checkpoint(saved(state, tmp_path), ratios=RATIOS[num_paths]))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_a_network_of_ours_goes_out_and_comes_back(tmp_path: Path, randomised) -> None:
    net = fuse(randomised(create_model("lpsnet_s")))
    loaded = load_official_checkpoint(saved(official_state_dict(net), tmp_path), ratios=("3/4", "1/4"))
    assert loaded.architecture == net.architecture
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(image), net(image))


@pytest.mark.parametrize("wrap", [lambda s: {"state_dict": s, "epoch": 3}, lambda s: {f"module.{k}": s[k] for k in s}])
def test_wrapped_state_dicts(wrap, tmp_path: Path) -> None:
    state = official_state(2)
    net = load_official_checkpoint(saved(wrap(state), tmp_path), ratios=("3/4", "1/4", 0))
    assert torch.equal(net.head.weight, state["head.weight"])


def test_half_precision_is_widened(tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in official_state(1).items()}
    net = load_official_checkpoint(saved(state, tmp_path), ratios=("1/2",))
    assert torch.equal(net.head.weight, state["head.weight"].float())


def check_refused(path: Path, ratios: tuple[str, ...], *words: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        load_official_checkpoint(path, ratios=ratios)
    text = str(caught.value)
    assert "\n" not in text
    for word in (path.name, *words):
        assert word in text, text


@pytest.mark.parametrize("ratios", [("3/4",), ("1", "1/2", "1/4")])
def test_another_number_of_ratios(ratios: tuple[str, ...], tmp_path: Path) -> None:
    check_refused(saved(official_state(2), tmp_path), ratios, "2 paths", ratios[0])


def test_no_ratio_at_all(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError):
        load_official_checkpoint(saved(official_state(2), tmp_path), ratios=())


def test_faulty_names_and_shapes_are_named(tmp_path: Path) -> None:
    state = official_state(2)
    del state["netL.stages.3.1.0.bias"]
    state["aux.weight"] = torch.zeros(3)
    state["netL.stages.2.0.0.weight"] = torch.zeros(5, 7, 3, 3)
    words = (
        "missing: netL.stages.3.1.0.bias",
        "unexpected: aux.weight",
        "misshapen: netL.stages.2.0.0.weight 5x7x3x3 instead of 5x6x3x3",
    )
    check_refused(saved(state, tmp_path), ("3/4", "1/4"), *words)


@pytest.mark.parametrize("missing", ["head.weight", "netH.stages.3.0.0.weight"])
def test_what_the_shapes_are_read_from_must_be_there(missing: str, tmp_path: Path) -> None:
    state = official_state(2)
    del state[missing]
    check_refused(saved(state, tmp_path), ("3/4", "1/4"), f"{missing} is missing")


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in official_state(2).items() if not name.startswith("netL")}
    check_refused(saved(state, tmp_path), ("3/4", "1/4"), "missing: netL.stages.0.0.0.weight", "more")


@pytest.mark.parametrize("shape", [(), (3,), (0, 3, 3, 3)])
def test_odd_shapes(shape: tuple[int, ...], tmp_path: Path) -> None:
    state = official_state(1)
    state["net.stages.0.0.0.weight"] = torch.zeros(shape)
    check_refused(saved(state, tmp_path), ("1/2",), "net.stages.0.0.0.weight")


def test_not_finite(tmp_path: Path) -> None:
    state = official_state(1)
    state["head.bias"][0] = float("nan")
    check_refused(saved(state, tmp_path), ("1/2",), "head.bias")


@pytest.mark.parametrize("content", [{"backbone.conv1.weight": torch.zeros(1)}, {}, [1, 2], {"a": 1}, torch.zeros(3)])
def test_other_contents(content: object, tmp_path: Path) -> None:
    check_refused(saved(content, tmp_path), ("1/2",))


def test_other_files(tmp_path: Path) -> None:
    check_refused(tmp_path / "nothing.pth", ("1/2",))
    text = tmp_path / "text.pth"
    text.write_text("hello")
    check_refused(text, ("1/2",))


class Hostile:
    def __reduce__(self):
        return Path.touch, (Path("hostile-code-ran"),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile.pth").write_bytes(pickle.dumps({"head.weight": Hostile()}))
    check_refused(tmp_path / "hostile.pth", ("1/2",))
    torch.save({"head.weight": Hostile()}, tmp_path / "hostile.pth")
    check_refused(tmp_path / "hostile.pth", ("1/2",))
    assert not (tmp_path / "hostile-code-ran").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"form": "reparameterised"}, "fuse"),
        ({"form": "plain", "block": "ghost"}, "conv3x3"),
        ({"form": "plain", "interaction": "none"}, "bilateral_b"),
        ({"form": "plain", "align_corners": False}, "align_corners"),
    ],
)
def test_networks_that_the_official_implementation_has_not(options: dict, word: str) -> None:
    with pytest.raises(LpsnetError, match=word):
        official_state_dict(create_model("tiny", **options))
