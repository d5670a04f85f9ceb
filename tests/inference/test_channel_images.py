"""Images of other channels, from the array to the labels: NumPy and torch say what the network is given."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
import torch.nn.functional as F
from engine_models import small_network
from random_networks import randomise

from lpsnet.data.channels import Channels
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import DataError
from lpsnet.export.export import export
from lpsnet.export.quantise import Quantisation
from lpsnet.inference import pipeline
from lpsnet.inference.engines import FakeSession
from lpsnet.inference.hub import model_card
from lpsnet.inference.outputs import Style
from lpsnet.inference.preprocess import prepare, sample_image
from lpsnet.inference.segmenter import Segmenter
from lpsnet.inference.web import write_page
from lpsnet.inference.windows import Windows
from lpsnet.models.checkpoint import default_record, save_checkpoint
from lpsnet.models.network import Network, create_model
from lpsnet.models.reparameterise import fuse
from lpsnet.record import ModelRecord, Normalisation

SIX = ("blue", "green", "red", "edge", "nir", "swir")
ARCH = "B=1,1,1,1,1;C=4,8,8,8,8;R=3/4,1/4"


def normalisation(count: int, max_value: int) -> Normalisation:
    mean, std = np.linspace(0.02, 0.05, count), np.linspace(0.01, 0.02, count)  # of 12 bits in 16
    return Normalisation(mean=tuple(mean.tolist()), std=tuple(std.tolist()), max_value=max_value)  # type: ignore[arg-type]


def six_network() -> tuple[Network, ModelRecord]:
    torch.manual_seed(0)
    net = randomise(create_model(ARCH, num_classes=5, in_channels=6)).eval()
    with torch.no_grad():  # all classes occur
        net.head.weight.normal_()
        net.head.bias.copy_(-net(torch.randn(1, 6, 70, 90)).mean((0, 2, 3)) + net.head.bias)
    record = default_record(net, label_space=LabelSpace.numbered(5))
    return net, record.model_copy(update={"channels": SIX, "normalisation": normalisation(6, 65535)})


def image_of(record: ModelRecord, size: tuple[int, int] = (70, 90), seed: int = 0) -> np.ndarray:
    return sample_image(record, size, seed=seed)


def normalised(image: np.ndarray, norm: Normalisation) -> torch.Tensor:
    numbers = (image.astype(np.float64) / norm.max_value - np.array(norm.mean)) / np.array(norm.std)
    return torch.from_numpy(numbers.astype(np.float32)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("max_value", [255, 65535])
@pytest.mark.parametrize("count", [1, 2, 6, 16])
def test_prepared_images_are_those_of_torch(max_value: int, count: int) -> None:
    channels, norm = Channels.numbered(count), normalisation(count, max_value)
    values = {"architecture": None, "label_space": LabelSpace.numbered(2)}
    record = ModelRecord(**values, channels=channels.names, normalisation=norm)
    image = np.random.default_rng(0).integers(0, max_value + 1, (40, 60, count)).astype(record.image_channels.dtype)
    expected = normalised(image, norm)
    assert np.allclose(prepare(image, record, size=None), expected.numpy(), rtol=1e-4, atol=1e-3)
    larger = F.interpolate(expected, (64, 96), mode="bilinear", align_corners=True).numpy()
    found = prepare(image, record, size=(64, 96))
    assert np.abs(found - larger).max() < 2e-2 * np.abs(larger).max()  # OpenCV's weights have 5 bits
    if count == 1:
        assert np.array_equal(prepare(image[..., 0], record, size=None), prepare(image, record, size=None))


def test_sampled_images_have_the_moments_of_the_record() -> None:
    _, record = six_network()
    image = sample_image(record, (200, 300)).astype(np.float64) / 65535
    assert image.shape == (200, 300, 6)
    assert np.allclose(image.mean((0, 1)), record.normalisation.mean, rtol=0.03)
    assert np.allclose(image.std((0, 1)), record.normalisation.std, rtol=0.1)


@pytest.mark.parametrize("suffix", [".onnx", ".openvino", ".ncnn", ".safetensors"])
@pytest.mark.parametrize("size", [None, (64, 96)])
def test_every_engine_gives_the_labels_of_torch(tmp_path: Path, suffix: str, size: tuple[int, int] | None) -> None:
    net, record = six_network()
    path = tmp_path / f"six{suffix}"
    if suffix == ".safetensors":
        save_checkpoint(net, path, record=record)
    else:
        export(net, path, to=suffix[1:], record=record, size=size)
    segment = Segmenter(path, num_threads=1, input_size=size)
    assert segment.record.image_channels == Channels(SIX, 16)
    image = image_of(record)
    with torch.inference_mode():
        given = F.interpolate(
            normalised(image, record.normalisation), size or (70, 90), mode="bilinear", align_corners=True
        )
        expected = fuse(net)(given)
        whole = F.interpolate(expected, (70, 90), mode="bilinear", align_corners=True)
    result = segment(image)
    assert result.shape == (70, 90)
    logits, spread = segment.logits(image), float(np.ptp(expected.numpy()))
    assert np.abs(logits - expected[0].numpy()).max() / spread < (1e-4 if size is None else 0.05)
    agree = float((np.asarray(result) == whole.argmax(1)[0].numpy()).mean())
    assert agree >= (0.999 if size is None else 0.97)
    assert len(np.unique(result.labels)) > 1
    if segment.path_inputs:
        plain = Segmenter(path, num_threads=1, input_size=size, path_inputs=False)
        assert float((np.asarray(plain(image)) == np.asarray(result)).mean()) >= 0.999


def test_int8_is_calibrated_on_such_images(tmp_path: Path) -> None:
    net, record = six_network()
    images = [image_of(record, (64, 96), seed=number) for number in range(4)]
    options = {"record": record, "size": (64, 96), "precision": "int8", "min_label_agreement": 60.0}
    report = export(net, tmp_path / "m.onnx", to="onnx", quantisation=Quantisation(images), **options)
    assert report.precision == "int8"
    assert Segmenter(tmp_path / "m.onnx")(images[0]).shape == (64, 96)


def fake(names: tuple[str, ...], max_value: int) -> Segmenter:
    """Class 1 where the first channel is above its mean."""
    norm = normalisation(len(names), max_value)
    record = ModelRecord(
        architecture=None, label_space=LabelSpace.numbered(2), channels=names, normalisation=norm, align_corners=True
    )
    session = FakeSession(lambda image: np.stack([-image[:, 0], image[:, 0]], axis=1))
    return Segmenter.from_session(session, record)


@pytest.mark.parametrize(("names", "max_value"), [(("heat",), 65535), (SIX, 65535), (SIX[:2], 255)])
def test_wrong_images_are_refused(names: tuple[str, ...], max_value: int) -> None:
    segment = fake(names, max_value)
    kind = segment.record.image_channels.dtype
    for wrong in (
        np.zeros((40, 50, 3), np.uint8),
        np.zeros((40, 50, len(names)), np.uint8 if kind == np.uint16 else np.uint16),
        np.zeros((40, 50, len(names)), np.float32),
        np.zeros((0, 50, len(names)), kind),
    ):
        with pytest.raises(DataError, match=f"H x W x {len(names)} {kind} is expected"):
            segment(wrong)
    with pytest.raises(DataError, match="RGB"):
        Segmenter("camvid_s")(np.zeros((40, 50, 6), np.uint16))


def test_results_show_a_rendering() -> None:
    segment = fake(SIX, 65535)
    image = image_of(segment.record)
    result = segment(image)
    drawn = Channels(SIX, 16).rendering(image)
    assert np.array_equal(
        np.asarray(result), (image[..., 0] > 65535 * segment.record.normalisation.mean[0]).astype(np.uint8)
    )
    crop = result[10:40, 5:60]
    assert np.array_equal(crop.image, drawn[10:40, 5:60])
    assert np.array_equal(result.image, drawn)
    assert result.overlay(opacity=0).shape == (70, 90, 3)
    assert np.array_equal(result.overlay(opacity=0), drawn)
    assert np.array_equal(result.copy().image, drawn)
    cut = segment.windows(image, (48, 48), overlap=8)
    assert np.array_equal(cut.image, drawn)


def test_windows_as_large_as_the_image_change_nothing(tmp_path: Path) -> None:
    net, record = six_network()
    save_checkpoint(net, tmp_path / "m.safetensors", record=record)
    segment, image = Segmenter(tmp_path / "m.safetensors"), image_of(record)
    assert np.array_equal(np.asarray(segment.windows(image, (70, 90))), np.asarray(segment(image)))
    assert segment.windows(image, (48, 48), overlap=8).shape == (70, 90)


def test_folders_are_segmented_with_their_further_files(tmp_path: Path) -> None:
    segment = fake(("red", "green", "blue", "depth"), 65535)
    rng = np.random.default_rng(0)
    images = {}
    for number in range(2):
        rgb, depth = rng.integers(0, 256, (40, 50, 3), np.uint8), rng.integers(0, 65536, (40, 50), np.uint16)
        cv2.imwrite(str(tmp_path / f"{number}.png"), rgb[..., ::-1])
        cv2.imwrite(str(tmp_path / f"{number}_depth.png"), depth)
        images[str(number)] = np.dstack([rgb, depth])
    found = pipeline.find_sources([str(tmp_path)])
    read = pipeline.Reader.of(segment.record.image_channels, [f"{tmp_path}/{{name}}_depth.png"], found)
    sources = read.without_extra(found)
    assert [source.stem.as_posix() for source in sources] == ["0", "1"]
    style = Style(segment.label_space)
    for windows in (None, Windows((48, 48), 8)):
        outcomes = list(
            pipeline.segment_images(
                segment,
                sources,
                tmp_path / "out",
                outputs=["labels", "overlay"],
                style=style,
                windows=windows,
                read=read,
            )
        )
        for outcome in outcomes:
            assert not outcome.problem
            expected = np.asarray(segment(images[outcome.source.stem]))
            assert np.array_equal(cv2.imread(str(outcome.files["labels"]), cv2.IMREAD_UNCHANGED), expected)
    alone = list(
        pipeline.segment_images(
            segment, sources[:1], tmp_path / "out", outputs=["labels"], style=style,
            read=pipeline.Reader.of(segment.record.image_channels, [], sources),
        )
    )  # fmt: skip
    assert "H x W x 4 uint16 is expected" in alone[0].problem
    with pytest.raises(DataError, match="one file for each image"):
        pipeline.Reader.of(Channels(), ["depth"], found)
    with pytest.raises(DataError, match=r"\{split\}"):
        pipeline.Reader.of(segment.record.image_channels, ["depth/{split}"], found)


def test_tiff_files_are_segmented(tmp_path: Path) -> None:
    segment = fake(SIX, 65535)
    image = image_of(segment.record)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", planarconfig="contig")
    sources = pipeline.find_sources([str(tmp_path / "a.tif")])
    (outcome,) = pipeline.segment_images(
        segment,
        sources,
        tmp_path,
        outputs=["labels"],
        style=Style(segment.label_space),
        read=pipeline.Reader.of(segment.record.image_channels, [], sources),
    )
    written = cv2.imread(str(outcome.files["labels"]), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(written, np.asarray(segment(image)))


def test_what_is_for_rgb_alone_says_so(tmp_path: Path) -> None:
    net, record = six_network()
    export(net, tmp_path / "m.onnx", to="onnx", record=record)
    with pytest.raises(DataError, match="6 channels of 16 bits"):
        write_page(tmp_path / "m.onnx", tmp_path / "page")
    card = model_card(record, repo="me/six", file="m.onnx")
    assert "H x W x 6 uint16" in card
    assert "6 channels of 16 bits" in card
    assert "H x W x 3 uint8 RGB" in model_card(default_record(small_network()), repo="me/rgb", file="m.onnx")
