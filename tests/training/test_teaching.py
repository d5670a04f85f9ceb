"""Learning from a teacher: its logits, the distance to them, images without labels, resuming, and what is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import any_networks
import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_run import RUN

from lpsnet.data.labels import LabelSpace
from lpsnet.data.synthetic import SCENES
from lpsnet.errors import LpsnetError, RunError
from lpsnet.inference.model_file import read_record
from lpsnet.models.checkpoint import default_record, load_checkpoint, save_checkpoint
from lpsnet.models.network import Network, create_model
from lpsnet.training import loop
from lpsnet.training.data import Batches
from lpsnet.training.loop import Loop, make_accelerator
from lpsnet.training.losses import Teacher, distillation
from lpsnet.training.run import Status, TrainingRun
from lpsnet.training.run_folder import RunFolder
from lpsnet.training.segmentation import Segmentation, train

CPU = torch.device("cpu")
SIZES = ((48, 64), (48, 64), (60, 80), (90, 70), (48, 64))


def network(num_classes: int, seed: int = 5) -> Network:
    """One whose batch norms, in eval mode, do something."""
    torch.manual_seed(seed)
    made = create_model("B=1,1,1,1,1;C=4,4,8,8,8;R=1", num_classes=num_classes)
    with torch.no_grad():
        made.head.weight.normal_()
        for _ in range(3):
            made(torch.randn(4, 3, 48, 64))
    return made.eval()


def save_teacher(path: Path, names: tuple[str, ...] = SCENES.names, seed: int = 5) -> Path:
    made = network(len(names), seed)
    record = default_record(made, label_space=LabelSpace.from_names("taught", names))
    save_checkpoint(made, path, record=record.model_copy(update={"licence": "for tests alone"}))
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose every byte is 200 and their number, of several sizes, one in a folder of its own."""
    folder = tmp_path_factory.mktemp("unlabelled")
    (folder / "more").mkdir()
    for number, size in enumerate(SIZES):
        place = folder / "more" if number == 4 else folder
        cv2.imwrite(str(place / f"{number}.png"), np.full((*size, 3), 200 + number, np.uint8))
    return folder


def taught(teacher: Path, unlabelled: Path | None = None, **settings) -> TrainingRun:
    recipe = RUN.recipe.with_overrides({"iterations": 8, "batch_size": 4, **settings})
    return replace(RUN, recipe=recipe, teacher=teacher, unlabelled=unlabelled)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def test_the_distance_is_the_definitions() -> None:
    generator = torch.Generator().manual_seed(1)
    own, given = (3 * torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = 0.0
    for n, y, x in np.ndindex(2, 3, 5):
        p, q = softmax(given[n, :, y, x].numpy() / 2.5), softmax(own[n, :, y, x].numpy() / 2.5)
        expected += 2.5**2 * float((p * np.log(p / q)).sum())
    total, count = distillation(own, given, 2.5)
    assert total.item() == pytest.approx(expected)
    assert count.item() == 2 * 3 * 5
    assert distillation(own, own, 2.5)[0].item() == pytest.approx(0, abs=1e-12)
    assert torch.autograd.gradcheck(lambda x: distillation(x, given, 2.5)[0], own.requires_grad_())


def test_extreme_logits_are_finite_in_bf16() -> None:
    own = torch.tensor([[1e4, -1e4, 0.0]], dtype=torch.bfloat16)[:, :, None, None].requires_grad_()
    total, _ = distillation(own, -own.detach(), 1.0)
    total.backward()
    assert torch.isfinite(total)
    assert own.grad is not None
    assert torch.isfinite(own.grad).all()


def test_a_teacher_gives_its_logits_for_the_students_classes_at_the_students_size(tmp_path: Path) -> None:
    names = ("extra", *reversed(SCENES.names[:-1]), SCENES.names[-1].upper())
    path = save_teacher(tmp_path / "superset.safetensors", names)
    images = torch.randint(0, 256, (2, 48, 64, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    made = Teacher.of(path, RUN.recipe, SCENES.names, CPU)
    logits = made(images, (6, 9))
    record = read_record(path)
    mean, std = (torch.tensor(values) for values in (record.normalisation.mean, record.normalisation.std))
    with torch.no_grad():
        whole = load_checkpoint(path)(((images / 255 - mean) / std).permute(0, 3, 1, 2))
    lower = [name.lower() for name in names]
    mine = torch.stack([whole[:, lower.index(name)] for name in SCENES.names], 1)
    expected = torch.nn.functional.interpolate(mine, (6, 9), mode="bilinear", align_corners=True)
    assert torch.allclose(logits, expected, atol=1e-4)
    assert not logits.requires_grad
    assert made.facts["other_classes"] == ["extra"]


def test_a_teacher_without_a_class_of_the_data_is_refused_in_one_line(tmp_path: Path) -> None:
    path = save_teacher(tmp_path / "t.safetensors", (*SCENES.names[:-1], "boat"))
    with pytest.raises(RunError, match=rf"does not know '{SCENES.names[-1]}' of the data, and knows boat;") as caught:
        train(taught(path), tmp_path / "run", tensorboard=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_loss_is_the_labels_plus_the_weighted_distance(teacher: Path, unlabelled: Path, tmp_path: Path) -> None:
    run = taught(teacher, unlabelled, teacher_weight=0.7, teacher_temperature=3.0, loss_stride=1)
    task = Segmentation.of(run, CPU)
    steps = Loop(task, make_accelerator(), folder=RunFolder(tmp_path))
    images, labels = next(steps._batches())
    student = Segmentation.of(run, CPU).network.train()
    mean, std = (torch.tensor(values) for values in (task.normalisation.mean, task.normalisation.std))
    inputs = ((images / 255 - mean) / std).permute(0, 3, 1, 2)
    own = student(inputs)
    with torch.no_grad():
        given = load_checkpoint(teacher)(inputs)
    given = torch.nn.functional.interpolate(given, own.shape[2:], mode="bilinear", align_corners=True)
    p = (given / 3).softmax(1)
    distance = 9 * (p * (p.log() - (own / 3).log_softmax(1))).sum(1).mean()
    whole = torch.nn.functional.interpolate(own, labels.shape[1:], mode="bilinear", align_corners=True)
    expected = torch.nn.functional.cross_entropy(whole, labels.long(), ignore_index=255) + 0.7 * distance
    loss, _ = next(steps.steps())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert distance.item() > 0.01


@pytest.mark.parametrize(("share", "count"), [(0.5, 2), (0.01, 1), (0.99, 3)])
def test_a_share_of_every_batch_has_no_labels(teacher: Path, unlabelled: Path, share: float, count: int) -> None:
    still = {"brightness": 0, "contrast": 0, "saturation": 0}
    task = Segmentation.of(taught(teacher, unlabelled, unlabelled_share=share, iterations=10, **still), CPU)
    batches = list(Loop(task, make_accelerator(), folder=RunFolder(Path()))._batches())
    shown: list[int] = []
    for images, labels in batches:
        assert [bool((label == 255).all()) for label in labels] == [False] * (4 - count) + [True] * count
        shown += [int(image.reshape(-1, 3).max()) for image in images[4 - count :]]
    assert all(sorted(shown[turn : turn + 5]) == [200, 201, 202, 203, 204] for turn in range(0, 10 * count - 4, 5))


def test_labelled_images_come_once_before_one_comes_again(teacher: Path, unlabelled: Path) -> None:
    task = Segmentation.of(taught(teacher, unlabelled, unlabelled_share=0.25), CPU)
    seen: list[int] = []

    class Named:
        def __init__(self, images) -> None:
            self.images = images

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, index: int):
            sample = self.images[index]
            return replace_image(sample, index)

    def replace_image(sample, index: int):
        return sample._replace(image=np.full_like(sample.image, index), labels=np.zeros_like(sample.labels))

    plain = {"flip": 0, "brightness": 0, "contrast": 0, "saturation": 0, "scale": (1, 1)}
    task = replace(task, images=Named(task.images), augmentation=RUN.recipe.with_overrides(plain).augmentation)
    for images, _ in Loop(task, make_accelerator(), folder=RunFolder(Path()))._batches():
        seen += [int(image[20, 30, 0]) for image in images[:3]]
    assert all(sorted(seen[turn : turn + 6]) == list(range(6)) for turn in range(0, 24, 6))


def stop_at(number: int):
    def stop(status: Status) -> None:
        if status.iteration == number:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize(
    "settings",
    [{}, {"aux_weight": 0.4, "class_mix": 0.5, "rare_class_crops": 0.5, "loss": "dice", "ema_decay": 0.9}],
)
def test_a_stopped_run_resumes_to_the_same_weights(
    teacher: Path, unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    monkeypatch.setattr(loop, "EPOCH_CHECKPOINT_SECONDS", 0)
    run = taught(teacher, unlabelled, **settings)
    train(run, tmp_path / "whole", tensorboard=False)
    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path / "parts", on_progress=stop_at(5), tensorboard=False)
    assert (tmp_path / "parts" / "state.safetensors").exists()
    train(run, tmp_path / "parts", resume=True, tensorboard=False)
    whole, parts = (RunFolder(tmp_path / name) for name in ("whole", "parts"))
    assert [row["loss"] for row in whole.read_log()] == [row["loss"] for row in parts.read_log()]
    ours, theirs = load_file(whole.model), load_file(parts.model)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_the_record_names_teacher_and_images(teacher: Path, unlabelled: Path, tmp_path: Path) -> None:
    import hashlib

    train(taught(teacher, unlabelled), tmp_path, tensorboard=False)
    record = read_record(tmp_path / "model.safetensors")
    assert record.training["teacher"] == {
        "model": str(teacher),
        "sha256": hashlib.sha256(teacher.read_bytes()).hexdigest(),
        "licence": "for tests alone",
        "other_classes": [],
    }
    assert record.training["unlabelled"] == {"folder": str(unlabelled), "num_images": 5, "per_batch": 2}
    assert "for tests alone" in record.licence.split("; ")


def test_resume_is_refused_with_another_teacher_or_other_images(
    teacher: Path, unlabelled: Path, tmp_path: Path
) -> None:
    path, folder = tmp_path / "t.safetensors", tmp_path / "images"
    shutil.copy(teacher, path)
    shutil.copytree(unlabelled, folder)
    run = taught(path, folder, iterations=1)
    train(run, tmp_path / "run", tensorboard=False)
    save_teacher(path, seed=6)
    with pytest.raises(RunError, match=r"started on other data or weights: teacher: [0-9a-f]{8} then, [0-9a-f]{8} now"):
        train(run, tmp_path / "run", resume=True, tensorboard=False)
    shutil.copy(teacher, path)
    (folder / "3.png").unlink()
    with pytest.raises(RunError, match=r"other data or weights: unlabelled: 5 images \(\w+\) then, 4 images"):
        train(run, tmp_path / "run", resume=True, tensorboard=False)
    shutil.copy(unlabelled / "3.png", folder)
    train(run, tmp_path / "run", resume=True, tensorboard=False)
    with pytest.raises(RunError, match=r"has teacher = \S+t.safetensors, not None"):
        train(replace(RUN, recipe=run.recipe), tmp_path / "run", resume=True, tensorboard=False)


def test_a_teacher_teaches(teacher: Path, tmp_path: Path) -> None:
    """Without a labelled pixel's weight to speak of, a student comes nearer to its teacher."""
    run = taught(teacher, iterations=40, teacher_weight=50.0, learning_rate=0.002, ema_decay=0, teacher_temperature=1.0)
    train(run, tmp_path, tensorboard=False)
    losses = [float(row["loss"]) for row in RunFolder(tmp_path).read_log()]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.parametrize(
    ("changes", "settings", "part"),
    [
        ({"unlabelled": Path("x")}, {}, "give --unlabelled with --teacher"),
        ({}, {"teacher_weight": 2.0}, "teacher_weight has an effect with --teacher alone"),
        ({}, {"unlabelled_share": 0.2}, "unlabelled_share has an effect with --unlabelled alone"),
        (
            {"architecture": None, "network": any_networks.spec("unet")},
            {"aux_weight": 0.4},
            "aux_weight adds a head to networks of this package; leave it out with --network",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(changes: dict, settings: dict, part: str) -> None:
    with pytest.raises(RunError, match=part) as caught:
        replace(RUN, recipe=RUN.recipe.with_overrides(settings), **changes)
    assert "\n" not in str(caught.value)


def test_a_folder_without_images_and_a_batch_of_one_are_refused(
    teacher: Path, unlabelled: Path, tmp_path: Path
) -> None:
    with pytest.raises(LpsnetError, match="holds no images"):
        Segmentation.of(taught(teacher, tmp_path), CPU)
    with pytest.raises(LpsnetError, match="is no folder"):
        Segmentation.of(taught(teacher, tmp_path / "nowhere"), CPU)
    with pytest.raises(LpsnetError, match="has no place for one without labels"):
        Segmentation.of(taught(teacher, unlabelled, batch_size=1), CPU)
    with pytest.raises(LpsnetError, match="class_mix needs two images a batch"):
        Segmentation.of(taught(teacher, class_mix=0.5, batch_size=1), CPU)


def test_a_network_of_other_code_has_a_teacher_too(teacher: Path, tmp_path: Path) -> None:
    recipe = RUN.recipe.with_overrides({"iterations": 2, "form": "plain"})
    run = replace(RUN, architecture=None, network=any_networks.spec("stride_32"), recipe=recipe, teacher=teacher)
    result = train(run, tmp_path, tensorboard=False)
    assert read_record(result.model).training["teacher"]["model"] == str(teacher)


def test_without_any_of_it_a_step_is_what_it_was(tmp_path: Path) -> None:
    """Bit for bit: the loss and the update of a step as they were before there were teachers."""
    task, other = (Segmentation.of(RUN, CPU) for _ in range(2))
    assert type(task.model) is type(other.network)
    steps = Loop(task, make_accelerator(), folder=RunFolder(tmp_path)).steps()
    recipe, model = RUN.recipe, other.network.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=1, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    batches = Batches(other.images, recipe.augmentation, recipe.batch_size, recipe.seed, 1, 0).starting_at(0, 5)
    for iteration, (images, labels) in enumerate(batches):
        optimiser.param_groups[0]["lr"] = recipe.learning_rate_at(iteration, 24)
        total, weight = other.criterion(model(loop.normalise(images, other.normalisation)), labels)
        loss = total * 1 / weight
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert next(steps)[0].item() == loss.item()
    for name, value in task.network.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
