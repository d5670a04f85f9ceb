"""Networks written for an engine on the spot give the logits of the same network elsewhere."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

import torch
from export_networks import ARCHITECTURE, SIZE, network, record_of

from lpsnet.architecture import get_architecture
from lpsnet.errors import ModelFileError
from lpsnet.export.export import checkpoint_for_runtime, untrained_for_runtime
from lpsnet.inference.engines import SessionOptions, open_session
from lpsnet.inference.model_file import read_record
from lpsnet.models.checkpoint import save_checkpoint


@pytest.mark.parametrize(("runtime", "suffix"), [("onnxruntime", ".onnx"), ("pytorch", ".safetensors")])
def test_a_checkpoint_is_written_for_an_engine(tmp_path: Path, runtime: str, suffix: str) -> None:
    net = network()
    save_checkpoint(net, tmp_path / "own.safetensors", record=record_of(net))
    path = checkpoint_for_runtime(tmp_path / "own.safetensors", tmp_path, "made", runtime=runtime, size=SIZE)
    assert path == tmp_path / f"made{suffix}"
    record = read_record(path)
    assert (record.form, record.input_size) == ("deployed", SIZE)
    image = np.random.default_rng(0).standard_normal((1, 3, *SIZE), np.float32)
    with torch.inference_mode():
        expected = net(torch.from_numpy(image)).numpy()
    logits = open_session(runtime, SessionOptions(path, num_threads=1)).run(image)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_an_architecture_gets_the_same_weights_every_time(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    architecture = get_architecture(ARCHITECTURE)
    paths = [
        untrained_for_runtime(architecture, tmp_path, name, runtime="onnxruntime", size=SIZE, num_classes=4)
        for name in ("a", "b")
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert read_record(paths[0]).label_space.num_classes == 4
    assert torch.equal(torch.get_rng_state(), state)


def test_an_unknown_engine_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="unknown runtime 'onnxrt'; did you mean 'onnxruntime'"):
        untrained_for_runtime(get_architecture("tiny"), tmp_path, "a", runtime="onnxrt", size=SIZE)
