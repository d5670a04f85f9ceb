"""Batches made on the device that trains: pictures lie in its memory, and a batch is one warp and one colour change.

For a GPU and a data set that fits into its memory, where a few processor cores cannot warp as fast as the network
learns. What is random is drawn as by `Batches`, from the same seeds, so position p of the sequence shows the same part
of the same picture; a byte may differ by the rounding of OpenCV's fixed-point weights.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lpsnet.data.augment import MEAN_COLOUR, Augmentation
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.training.batches import SampleOrder, augmentation_rng, batch_positions
from lpsnet.training.task import Pictures

PREFETCHED = 4  # batches whose random numbers are drawn ahead
_NO_CHANGE = np.eye(3, 4)


class DevicePictures(NamedTuple):
    """A data set on a device: N x H x W x 3 uint8 RGB, and N x H x W uint8 class ids."""

    images: Tensor
    labels: Tensor


def load_pictures(
    pictures: Pictures, device: torch.device, *, max_bytes: int, num_workers: int
) -> DevicePictures | None:
    """All `pictures` on `device`; None if they are of several sizes or take more than `max_bytes`."""
    first = pictures[0]
    if len(pictures) * (first.image.nbytes + first.labels.nbytes) > max_bytes:
        return None
    images = torch.empty((len(pictures), *first.image.shape), dtype=torch.uint8)
    labels = torch.empty((len(pictures), *first.labels.shape), dtype=torch.uint8)

    def load(index: int) -> bool:
        sample = pictures[index]
        if sample.image.shape != first.image.shape or sample.labels.shape != first.labels.shape:
            return False
        images[index] = torch.from_numpy(sample.image)
        labels[index] = torch.from_numpy(sample.labels)
        return True

    with ThreadPoolExecutor(num_workers) as pool:
        alike = all(pool.map(load, range(len(pictures))))
    return DevicePictures(images.to(device), labels.to(device)) if alike else None


class _Draw(NamedTuple):
    """What a batch of B shows: picture numbers (B), crop-to-picture maps (B x 2 x 3), colours (B x 3 x 4), and the
    first and last + 1 row and column of each crop that shows its picture (B x 4)."""

    indices: NDArray[np.int64]
    maps: NDArray[np.float32]
    colours: NDArray[np.float32]
    inside: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DeviceBatches:
    """The batches of one process, from any iteration on; attributes as those of `Batches`.

    Attributes:
        augmentation: one that `is_affine`.
    """

    pictures: DevicePictures
    augmentation: Augmentation
    batch_size: int
    seed: int
    process_index: int = 0
    num_processes: int = 1

    def starting_at(self, iteration: int, end: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Batches.starting_at`, on the pictures' device."""
        order = SampleOrder(len(self.pictures.images), seed=self.seed)
        with ThreadPoolExecutor(1) as pool:
            pending: list[Future[_Draw]] = []
            for step in range(iteration, end + PREFETCHED):
                if step < end:
                    positions = batch_positions(step, self.batch_size, self.process_index, self.num_processes)
                    pending.append(pool.submit(self._draw, [(p, order.index(p)) for p in positions]))
                if step >= iteration + PREFETCHED:
                    yield self._sample(pending.pop(0).result())

    def _draw(self, places: list[tuple[int, int]]) -> _Draw:
        height, width = self.pictures.images.shape[1:3]
        samples = [self.augmentation.draw((height, width), augmentation_rng(self.seed, p)) for p, _ in places]
        inside = [
            (*rows.indices(self._size[0])[:2], *cols.indices(self._size[1])[:2]) for _, (rows, cols), _ in samples
        ]
        return _Draw(
            np.array([index for _, index in places], np.int64),
            np.linalg.inv(np.stack([sample.matrix for sample in samples]))[:, :2].astype(np.float32),
            np.stack([_NO_CHANGE if s.colours is None else s.colours for s in samples]).astype(np.float32),
            np.array(inside, np.int64),
        )

    @property
    def _size(self) -> tuple[int, int]:
        return self.augmentation.crop_size

    def _sample(self, draw: _Draw) -> tuple[Tensor, Tensor]:
        indices, maps, colours, inside = (torch.from_numpy(x).to(self.pictures.images.device) for x in draw)
        grid = _grid(maps, self._size, (self.pictures.images.shape[1], self.pictures.images.shape[2]))
        mean = grid.new_tensor(MEAN_COLOUR)
        # Outside the picture the sampler gives 0, so that is made to stand for what surrounds it.
        images = (self.pictures.images[indices].float() - mean).permute(0, 3, 1, 2)
        crops = F.grid_sample(images, grid, mode="bilinear", align_corners=False).permute(0, 2, 3, 1) + mean
        labels = self.pictures.labels[indices].float()[:, None] - IGNORE_INDEX
        crop_labels = F.grid_sample(labels, grid, mode="nearest", align_corners=False)[:, 0] + IGNORE_INDEX
        coloured = crops.round() @ colours[:, None, :, :3].transpose(2, 3) + colours[:, None, None, :, 3]
        crops = torch.where(_rectangles(inside, self._size)[..., None], coloured, crops)
        return crops.round().clamp(0, 255).to(torch.uint8), crop_labels.round().to(torch.uint8)


def _grid(maps: Tensor, size: tuple[int, int], picture: tuple[int, int]) -> Tensor:
    """Where each pixel of a crop lies in its picture, B x h x w x 2, in `grid_sample`'s units (align_corners=False)."""
    y, x = torch.meshgrid(*(torch.arange(n, device=maps.device, dtype=maps.dtype) for n in size), indexing="ij")
    places = torch.stack((x, y, torch.ones_like(x)), -1) @ maps[:, None].transpose(2, 3)
    extent = maps.new_tensor((picture[1], picture[0]))
    return (2 * places + 1) / extent - 1


def _rectangles(inside: Tensor, size: tuple[int, int]) -> Tensor:
    """B x h x w bool: the rows and columns of `inside`, B x 4."""
    rows, columns = (torch.arange(n, device=inside.device)[None] for n in size)
    in_rows = (rows >= inside[:, :1]) & (rows < inside[:, 1:2])
    in_columns = (columns >= inside[:, 2:3]) & (columns < inside[:, 3:])
    return in_rows[:, :, None] & in_columns[:, None, :]
