"""What is PyTorch's own: threads that belong to the caller, types on a CPU, compilation."""

import threading
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import torch
from engine_models import difference, images, logits, small_network, write_model

from lpsnet.errors import LpsnetError, ModelFileError
from lpsnet.inference.engines import SessionOptions, open_session
from lpsnet.models.network import Network


@pytest.fixture(scope="module")
def net() -> Network:
    return small_network()


@pytest.fixture(scope="module")
def path(net: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(net, tmp_path_factory.mktemp("pytorch") / "model.safetensors")


def test_each_session_has_its_threads_in_every_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch keeps the number for each calling thread, so it is looked at where and while a session computes."""
    seen: list[int] = []
    own = torch.nn.functional.interpolate

    def interpolate(*args: object, **options: object) -> object:
        seen.append(torch.get_num_threads())
        return own(*args, **options)

    monkeypatch.setattr(torch.nn.functional, "interpolate", interpolate)
    before = torch.get_num_threads()
    sessions = [open_session("pytorch", SessionOptions(path, num_threads=number)) for number in (1, 2)]
    try:
        for session in (*sessions, *sessions):
            start = len(seen)
            worker = threading.Thread(target=session.run, args=(images(1, 3, 32, 32),))
            worker.start()
            worker.join()
            session.run(images(1, 3, 32, 32))
            assert set(seen[start:]) == {session.num_threads}
    finally:
        torch.set_num_threads(before)


def test_the_network_is_fused_and_channels_last(path: Path) -> None:
    session = open_session("pytorch", SessionOptions(path, num_threads=1))
    net = session._net  # type: ignore[attr-defined]
    assert net.form == "deployed"
    assert not net.training
    weight = net.paths[0].stages[3][0].unit.conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_too_small_a_image_is_the_networks_own_error(path: Path) -> None:
    session = open_session("pytorch", SessionOptions(path, num_threads=1))
    with pytest.raises(LpsnetError, match="from 32x32 pixels up"):
        session.run(images(1, 3, 16, 64))


def test_what_torch_complains_of_is_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session("pytorch", SessionOptions(path, num_threads=1))

    def fail(_: object) -> None:
        raise torch.OutOfMemoryError("out of memory\n" + "a long explanation\n" * 100)

    monkeypatch.setattr(session, "_forward", fail)
    with pytest.raises(ModelFileError, match=r"PyTorch cannot run .*: out of memory a long") as error:
        session.run(images(1, 3, 64, 64))
    assert len(str(error.value)) < 400


@pytest.mark.skipif(torch.cuda.is_available(), reason="on CUDA there is f16")
def test_a_cpu_has_no_f16(path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"f16 was asked for.*possible on this machine: f32, bf16"):
        open_session("pytorch", SessionOptions(path, precision="f16"))


@pytest.mark.slow
def test_compiled_is_the_same_network(net: Network, path: Path) -> None:
    """Takes a C++ compiler and most of a minute."""
    session = open_session("pytorch_compiled", SessionOptions(path, num_threads=1))
    assert session.runtime == "pytorch_compiled"
    batch = images(1, 3, 64, 96)
    assert difference(session.run(batch), logits(net, batch)) < 1e-5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize(("precision", "bound"), [("f32", 1e-5), ("f16", 1e-2), ("bf16", 5e-2)])
def test_on_cuda(net: Network, path: Path, precision: str, bound: float) -> None:
    session = open_session("pytorch", SessionOptions(path, precision=precision))  # type: ignore[arg-type]
    assert session.precision == precision
    assert "CPU" not in session.engine
    batch = images(2, 3, 64, 96)
    assert difference(session.run(batch), logits(net, batch)) < bound


def test_many_networks_are_compiled_not_only_eight(path: Path) -> None:
    """Past its limit PyTorch computes without compiling, and only a log says so."""
    for _ in range(2):
        open_session("pytorch_compiled", SessionOptions(path))
    limits = torch._dynamo.config
    assert getattr(limits, "recompile_limit", limits.cache_size_limit) >= 256
