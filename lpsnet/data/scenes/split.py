"""Generated scenes as a split of a data set: any number of pictures, drawn when they are asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from lpsnet.data.labels import LabelSpace
from lpsnet.data.scenes.canvas import SCENES
from lpsnet.data.scenes.scene import check_size, draw_scene
from lpsnet.data.splits import Sample
from lpsnet.errors import DataError

MAX_SEED = 2**32 - 1
MAX_SCENES = 1_000_000


@dataclass(frozen=True, slots=True)
class SceneSplit:
    """Street scenes, each made from (seed, name of the split, index) alone: the same on every run and machine.

    Splits of one seed with different names have no scene in common; a longer split begins with the scenes of a shorter
    one; the size changes how finely a street is drawn, not which.

    Attributes:
        size: (height, width) of every scene, in pixels.
        count: number of scenes, from 1.
        seed: 0 to 2**32 - 1.
        name: what the split is called, e.g. "train".

    Raises:
        DataError: a number is out of bounds, or the name is empty.
    """

    _: KW_ONLY
    size: tuple[int, int]
    count: int
    seed: int
    name: str

    def __post_init__(self) -> None:
        check_size(self.size)
        if not 1 <= self.count <= MAX_SCENES:
            raise DataError(f"a split has 1 to {MAX_SCENES} scenes; got {self.count}")
        if not 0 <= self.seed <= MAX_SEED:
            raise DataError(f"the seed of scenes is 0 to {MAX_SEED}; got {self.seed}")
        if not self.name:
            raise DataError("a split of scenes needs a name, e.g. 'train'; scenes differ by it")

    @property
    def label_space(self) -> LabelSpace:
        """The classes of all generated scenes, `SCENES`."""
        return SCENES

    @property
    def names(self) -> Sequence[str]:
        """scene_00000, scene_00001, …"""
        return tuple(map(_name, range(self.count)))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        """Draw a scene; negative indices count from the end."""
        index = self._checked(index)
        # Bytes of the name behind the numbers: no two different triples give the same sequence, and so the same scene.
        rng = np.random.default_rng((self.seed, index, *self.name.encode()))
        return Sample(_name(index), *draw_scene(rng, self.size))

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(self.count))

    def image(self, index: int) -> NDArray[np.uint8]:
        """The picture: H x W x 3 uint8 RGB."""
        return self[index].image

    def labels(self, index: int) -> NDArray[np.uint8]:
        """The labels: H x W uint8 class ids, 255 for no label."""
        return self[index].labels

    def _checked(self, index: int) -> int:
        if not -self.count <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        return index % self.count


def _name(index: int) -> str:
    return f"scene_{index:05d}"
