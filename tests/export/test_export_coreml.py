"""Core ML packages: their structure is checked by the export; here the program in them is computed by torch.

Core ML itself runs on Apple's systems only. `_OPERATORS` says what each operator of its programs means, by Apple's
documentation of them, so that the numbers of a package can be compared with the network's anywhere.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("coremltools", reason="coremltools is not installed: pip install 'lpsnet[coreml]'")

import coremltools
import torch
import torch.nn.functional as F
from export_networks import SIZE, network, record_of

from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.export import phones as exporter
from lpsnet.export.export import export
from lpsnet.export.verify import ExportReport
from lpsnet.models.network import Network, create_model
from lpsnet.models.reparameterise import fuse
from lpsnet.record import RECORD_KEY, ModelRecord


def exported(net: Network, path: Path, **options: Any) -> ExportReport:
    return export(net, path, to="coreml", record=record_of(net), **{"size": SIZE, **options})


def _conv(x: Any, weight: Any, pad_type: str, pad: Any, strides: Any, groups: int, bias: Any = None, **_: Any) -> Any:
    assert pad_type in ("custom", "valid")
    if pad_type == "custom":
        top, bottom, left, right = (int(length) for length in pad)
        x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(x, weight, bias, stride=[int(step) for step in strides], groups=int(groups))


def _upsample(x: Any, scale_factor_height: Any, scale_factor_width: Any, align_corners: Any, **_: Any) -> Any:
    factors = (float(scale_factor_height), float(scale_factor_width))
    size = [int(np.floor(length * factor)) for length, factor in zip(x.shape[2:], factors, strict=True)]
    return F.interpolate(x, size=size, mode="bilinear", align_corners=bool(align_corners))


def _concat(values: Any, axis: Any, interleave: Any = False) -> Any:
    if interleave:  # the first channel of each, then the second of each, …
        return torch.stack(values, dim=int(axis) + 1).flatten(int(axis), int(axis) + 1)
    return torch.cat(values, dim=int(axis))


def _pool(x: Any, kernel_sizes: Any, strides: Any, pad: Any, exclude_padding_from_average: Any, **_: Any) -> Any:
    top, _bottom, left, _right = (int(length) for length in pad)
    counts = not bool(exclude_padding_from_average)
    sizes, steps = [int(k) for k in kernel_sizes], [int(step) for step in strides]
    return F.avg_pool2d(x, sizes, steps, (top, left), count_include_pad=counts)


def _slice(x: Any, begin: Any, end: Any, begin_mask: Any = None, end_mask: Any = None, **_: Any) -> Any:
    free = [[False] * x.dim() if mask is None else [bool(value) for value in mask] for mask in (begin_mask, end_mask)]
    starts = [None if free[0][axis] else int(begin[axis]) for axis in range(x.dim())]
    ends = [None if free[1][axis] else int(end[axis]) for axis in range(x.dim())]
    return x[tuple(map(slice, starts, ends))]


_OPERATORS: dict[str, Any] = {
    "conv": _conv,
    "relu": lambda x: torch.relu(x),
    "clip": lambda x, alpha, beta: x.clamp(float(alpha), float(beta)),
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "sigmoid": lambda x: torch.sigmoid(x),
    "concat": _concat,
    "stack": lambda values, axis: torch.stack(values, dim=int(axis)),
    "reshape": lambda x, shape: x.reshape([int(length) for length in shape]),
    "upsample_bilinear": _upsample,
    "reduce_mean": lambda x, axes, keep_dims: x.mean([int(axis) for axis in axes], keepdim=bool(keep_dims)),
    "avg_pool": _pool,
    "pad": lambda x, pad, **_: F.pad(x, [int(n) for n in (pad[6], pad[7], pad[4], pad[5])]),
    "slice_by_index": _slice,
    "cast": lambda x, dtype: x,
}


def computed(path: Path, image: torch.Tensor) -> np.ndarray:
    """What the program in a package gives for an image."""
    function = exporter.read_program(coremltools, path).functions["main"]
    (name,) = function.inputs
    values: dict[str, Any] = {name: image}

    def value(given: Any) -> Any:
        if isinstance(given, list | tuple):
            return [value(each) for each in given]
        if given.name in values:
            return values[given.name]
        own = given.val
        return (
            torch.from_numpy(np.array(own, np.float32))
            if getattr(own, "dtype", None) in (np.float16, np.float32)
            else own
        )

    for operation in function.operations:
        if operation.op_type == "const":
            continue
        inputs = {key: value(given) for key, given in operation.inputs.items() if given is not None}
        (output,) = operation.outputs
        values[output.name] = _OPERATORS[operation.op_type](**inputs)
    (result,) = function.outputs
    logits: np.ndarray = values[result.name].numpy()
    return logits


NETWORKS = [
    ({}, (97, 131)),
    ({"align_corners": False}, (64, 96)),
    ({"block": "inverted_residual", "interaction": "attention_b"}, (64, 96)),
    ({"block": "bottleneck", "interaction": "direct_b"}, (65, 99)),
    ({"block": "shufflenet"}, (64, 96)),
]


@pytest.mark.parametrize(("options", "size"), NETWORKS)
def test_the_program_computes_the_networks_logits(
    tmp_path: Path, options: dict[str, Any], size: tuple[int, int]
) -> None:
    net, image = network(**options), torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    exported(net, tmp_path / "m.mlpackage", size=size)
    with torch.inference_mode():
        expected = fuse(net)(image).numpy()
    given = computed(tmp_path / "m.mlpackage", image)
    assert given.shape == expected.shape
    assert np.abs(given - expected).max() / np.ptp(expected) < 1e-4


@pytest.mark.parametrize("extra", ["D=8;X=gate", "D=4;X=pyramid;H=16"])
def test_finer_logits_and_context(tmp_path: Path, extra: str) -> None:
    torch.manual_seed(0)
    net = create_model(f"B=1,1,1,1,1;C=4,8,8,8,8;R=1,1/2;{extra}", num_classes=4).eval()
    for parameter in (*net.context.parameters(), *net.details.parameters(), net.head.weight):
        torch.nn.init.normal_(parameter)  # they are made without effect
    image = torch.randn(1, 3, 64, 96)
    exported(net, tmp_path / "m.mlpackage", size=(64, 96))
    with torch.inference_mode():
        expected = fuse(net)(image).numpy()
    assert np.abs(computed(tmp_path / "m.mlpackage", image) - expected).max() / np.ptp(expected) < 1e-4


def test_the_report_says_that_it_was_not_run(tmp_path: Path) -> None:
    net = network()
    report = exported(net, tmp_path / "m.mlpackage")
    assert [file.name for file in tmp_path.iterdir()] == ["m.mlpackage"]
    assert "not verified on hardware" in report.engine
    assert report.checks == ()
    values = report.to_dict()
    assert (values["format"], values["score_difference"], values["label_agreement"]) == ("coreml", None, None)
    files = [file for file in (tmp_path / "m.mlpackage").rglob("*") if file.is_file()]
    assert report.num_bytes == sum(file.stat().st_size for file in files)
    spec = coremltools.utils.load_spec(str(report.path))
    record = ModelRecord.from_json(spec.description.metadata.userDefined[RECORD_KEY])
    assert (record.form, record.input_size, record.architecture) == ("deployed", SIZE, net.architecture)


def test_a_package_in_f16_takes_the_place_of_one_in_f32(tmp_path: Path) -> None:
    net, sizes = network(), []
    for precision in ("f32", "f16"):
        report = exported(net, tmp_path / "m.mlpackage", precision=precision)
        (weights,) = (tmp_path / "m.mlpackage").rglob("weight.bin")
        sizes.append(weights.stat().st_size)
        assert report.precision == precision
    assert sizes[1] < 0.7 * sizes[0]
    assert [file.name for file in tmp_path.iterdir()] == ["m.mlpackage"]


def test_other_weights_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = exporter._convert_coreml

    def wrong(module: Any, deployed: Any, *rest: Any, **options: Any) -> Any:
        changed = fuse(deployed)
        with torch.no_grad():
            changed.head.weight += 1
        return own(module, changed, *rest, **options)

    monkeypatch.setattr(exporter, "_convert_coreml", wrong)
    with pytest.raises(ModelFileError, match="lacks the weights of a convolution"):
        exported(network(), tmp_path / "m.mlpackage")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({"size": None}, "m.mlpackage", "images of one size: --size HxW"),
        ({}, "m.onnx", r"ends in \.mlpackage"),
        ({"precision": "int8"}, "m.mlpackage", "exported in f32 or f16; got int8"),
    ],
)
def test_senseless_wishes_are_refused(tmp_path: Path, options: dict[str, Any], name: str, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        exported(network(), tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(MissingDependencyError, match=r"coremltools is not installed.*lpsnet\[coreml\]"):
        exported(network(), tmp_path / "m.mlpackage")
