"""Generated scenes: that labels are exact, that a scene is its seed, and that there is a street to be seen."""

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.data.split import Split
from lpsnet.data.synthetic import SCENES, SceneSplit, draw_scene, objects
from lpsnet.data.synthetic.objects import (
    BUILDING,
    CAR,
    POLE,
    ROAD,
    SKY,
    Camera,
    Canvas,
    Stroke,
    board,
    disc,
    flat,
    pick,
    shade,
)
from lpsnet.errors import DataError, LpsnetError

SIZE = (64, 128)
CAMERA = Camera(focal=100, centre=50, horizon=40, height=1.5)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def canvas(size: tuple[int, int] = (80, 100)) -> Canvas:
    """An empty canvas without haze."""
    return Canvas(np.zeros((*size, 4), np.uint8), CAMERA, haze=(0, 0, 0), visibility=1e12)


def split(**changes: object) -> SceneSplit:
    settings = {"size": SIZE, "count": 8, "seed": 0, "name": "train", **changes}
    return SceneSplit(**settings)  # type: ignore[arg-type]


def test_projection_by_hand() -> None:
    """At 10 m a metre is 10 pixels: the road 15 rows below the horizon, a person of 1.75 m 17.5 rows tall."""
    points = CAMERA.project([(0, 0, 10), (2, 0, 10), (0, 1.75, 10), (0, 1.5, 3), (1, 0, 1e9)])
    np.testing.assert_allclose(points, [(50, 55), (70, 55), (50, 37.5), (50, 40), (50, 40)], atol=1e-5)
    assert CAMERA.nearest(80) == pytest.approx(100 * 1.5 / 40)


def test_board_covers_the_pixels_it_should() -> None:
    """A board 2 m wide and 1 m high, 10 m ahead: columns 40 to 60 and rows 45 to 55, edges included."""
    image = canvas()
    image.paint([board((0, 10), [(-1, 0), (1, 0), (1, 1), (-1, 1)], (10, 20, 30), CAR)])
    expected = np.zeros((80, 100, 4), np.uint8)
    expected[45:56, 40:61] = (10, 20, 30, CAR)
    np.testing.assert_array_equal(image.pixels, expected)


def test_several_polygons_and_a_disc_in_their_order() -> None:
    image = canvas()
    near, far = flat(-1, 0, 8, 10), flat(0.5, 1, 8, 10)
    image.paint([Stroke([*near, *far], (9, 9, 9), ROAD, 2), disc((0, 10), 0, 0.5, (7, 7, 7), POLE)])
    labels = image.pixels[:, :, 3]
    rows, columns = np.nonzero(labels == POLE)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (50, 60, 45, 55)
    assert (labels[58, 42], labels[58, 55], labels[58, 58]) == (ROAD, 0, ROAD)
    assert image.pixels[55, 50].tolist() == [7, 7, 7, POLE]


def test_haze_mixes_colours_by_distance() -> None:
    """At the distance of the visibility, 1/e of the colour is left."""
    image = Canvas(np.zeros((80, 100, 4), np.uint8), CAMERA, haze=(200, 200, 200), visibility=10)
    image.paint([board((0, 10), [(-9, -9), (9, -9), (9, 9), (-9, 9)], (0, 100, 200), BUILDING)])
    left = np.exp(-1)
    expected = [200 * (1 - left), 100 * left + 200 * (1 - left), 200]
    np.testing.assert_allclose(image.pixels[40, 50, :3], expected, atol=1)
    assert (image.pixels[40, 50, 3]) == BUILDING


def test_shadows_darken_colours_and_leave_labels() -> None:
    image = canvas()
    image.pixels[:] = (200, 100, 50, 7)
    image.pixels[0, 0, 3] = IGNORE_INDEX
    labels = image.pixels[:, :, 3].copy()
    image.darken([flat(-1, 1, 5, 10), flat(-1, 1, 5, 10)], 0.5)
    np.testing.assert_array_equal(image.pixels[:, :, 3], labels)
    np.testing.assert_allclose(image.pixels[60, 50, :3], [100, 50, 25], atol=1)
    assert image.pixels[10, 10, :3].tolist() == [200, 100, 50]


@pytest.mark.parametrize("thing", [objects.tree, objects.car, objects.person, objects.lamp_post, objects.sign])
def test_label_and_colour_are_painted_together(thing: object) -> None:
    """With one colour a class, the image shows the label of every pixel exactly."""
    rows = np.arange(256)[:, None] * np.array([1, 3, 5]) % 251
    codes = rows.astype(np.uint8)
    image = canvas((200, 300))
    for seed in range(20):
        size = (6.0,) if thing is objects.tree else ()
        strokes = thing(rng(seed), (rng(seed).uniform(-1, 2), 4 + seed), *size)  # type: ignore[operator]
        blocks = objects.building(rng(seed), face=3, ends=(4 + seed, 15 + seed), height=9, sunlight=1)
        image.paint([s._replace(colour=tuple(codes[s.label].tolist())) for s in (*blocks, *strokes)])
    labels = image.pixels[:, :, 3]
    np.testing.assert_array_equal(image.pixels[:, :, :3], codes[labels])
    assert len(np.unique(labels)) >= 3


def test_things_have_their_size() -> None:
    """Heights in metres, read off the painted rows at 10 m, where 1 m is 10 pixels."""
    bounds = {objects.person: (15, 20), objects.car: (13, 24), objects.lamp_post: (49, 80), objects.sign: (23, 40)}
    for thing, (low, high) in bounds.items():
        for seed in range(10):
            image = Canvas(np.zeros((200, 100, 4), np.uint8), Camera(100, 50, 150, 1.5), (0, 0, 0), 1e12)
            image.paint(thing(rng(seed), (0.0, 10.0)))
            rows = np.nonzero(image.pixels[:, :, 3])[0]
            assert low <= rows.max() - rows.min() + 1 <= high, thing
            assert rows.max() == 165  # stands on the road


def test_splits_follow_the_protocol() -> None:
    scenes: Split = split()
    assert (scenes.name, len(scenes), scenes.label_space) == ("train", 8, SCENES)
    assert list(scenes.names) == [f"scene_0000{index}" for index in range(8)]
    sample = scenes[3]
    assert sample.name == "scene_00003"
    assert (sample.image.shape, sample.image.dtype) == ((*SIZE, 3), np.uint8)
    assert (sample.labels.shape, sample.labels.dtype) == (SIZE, np.uint8)
    assert sample.image.flags.c_contiguous
    np.testing.assert_array_equal(scenes.image(3), sample.image)
    np.testing.assert_array_equal(scenes.labels(3), sample.labels)
    np.testing.assert_array_equal(scenes[-5].image, sample.image)
    assert [s.name for s in split(count=2)] == ["scene_00000", "scene_00001"]
    for index in (8, -9):
        with pytest.raises(IndexError):
            scenes[index]


def test_a_scene_is_its_seed_split_and_index() -> None:
    images = [s[i].image.tobytes() for s in (split(), split(name="val"), split(seed=1)) for i in range(8)]
    assert len(set(images)) == 24
    longer = split(count=100)
    np.testing.assert_array_equal(longer[7].image, split()[7].image)
    np.testing.assert_array_equal(longer[7].labels, split()[7].labels)


def test_same_scene_in_another_process() -> None:
    program = (
        "import hashlib; from lpsnet.data.synthetic import SceneSplit;"
        f"s = SceneSplit(size={SIZE}, count=8, seed=0, name='train')[5];"
        "print(hashlib.sha256(s.image.tobytes() + s.labels.tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    here = split()[5]
    assert there == hashlib.sha256(here.image.tobytes() + here.labels.tobytes()).hexdigest()


def test_number_of_threads_does_not_matter() -> None:
    before, expected = cv2.getNumThreads(), split()[2].image
    try:
        cv2.setNumThreads(1)
        np.testing.assert_array_equal(split()[2].image, expected)
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize("size", [(32, 32), (33, 77), (200, 48), (48, 400), (120, 160)])
def test_any_size(size: tuple[int, int]) -> None:
    for seed in range(5):
        image, labels = draw_scene(rng(seed), size)
        assert image.shape == (*size, 3)
        assert labels.shape == size
        assert set(np.unique(labels)) <= {*range(SCENES.num_classes), IGNORE_INDEX}
        assert len(np.unique(labels)) >= 4


def test_size_changes_resolution_not_street() -> None:
    agreements = []
    for seed in range(6):
        small, large = draw_scene(rng(seed), (96, 192))[1], draw_scene(rng(seed), (192, 384))[1]
        agreements.append((small == large[::2, ::2]).mean())
    assert min(agreements) > 0.85


def test_every_class_is_there_often_enough() -> None:
    labels = np.stack([draw_scene(rng(seed), (128, 256))[1] for seed in range(40)])
    present = [(labels == number).any(axis=(1, 2)).mean() for number in range(SCENES.num_classes)]
    shares = np.bincount(labels.ravel(), minlength=256) / labels.size
    assert min(present) > 0.9
    assert shares[: SCENES.num_classes].min() > 0.01
    assert 0 < shares[IGNORE_INDEX] < 0.06


def test_it_is_a_street() -> None:
    """Sky above and brighter than the road, which is below; labels cut the image where its colours change."""
    for seed in range(20):
        image, labels = draw_scene(rng(seed), (128, 256))
        luma, rows = image.mean(axis=2), np.mgrid[:128, :256][0]
        assert rows[labels == ROAD].mean() > 80
        if (labels == SKY).any():
            assert rows[labels == SKY].mean() < 50
            assert luma[labels == SKY].mean() > luma[labels == ROAD].mean()


def test_pick_and_shade_stay_in_range() -> None:
    generator = rng()
    colours = np.array([pick(generator, ((250, 0, 128),), spread=0.2) for _ in range(200)])
    assert colours.min() >= 0
    assert colours.max() <= 255
    assert 128 * 0.75 < colours[:, 2].min() < 110
    assert 146 < colours[:, 2].max() < 128 * 1.27
    assert shade((200, 100, 50), 1.5) == (255, 150, 75)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": (31, 64)}, "size"),
        ({"size": (64, 5000)}, "size"),
        ({"size": (64.0, 64)}, "size"),
        ({"count": 0}, "scenes"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"name": ""}, "name"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        split(**changes)
    assert "\n" not in str(error.value)


def test_wrong_size_of_a_single_scene() -> None:
    with pytest.raises(LpsnetError, match="size"):
        draw_scene(rng(), (16, 16))
