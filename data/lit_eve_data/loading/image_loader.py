"""Batches of images of one size, for the image tokenizers.

Shapes: B images of a batch, H, W pixels, I images of a view.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch

from lit_eve_data.batches import ImageBatch
from lit_eve_data.disk.reading import RecordView
from lit_eve_data.disk.records import BadSampleError, Pixels
from lit_eve_data.encoding.crops import Crop, framed
from lit_eve_data.encoding.images import SizePolicy
from lit_eve_data.loading.resumable import ResumableLoader
from lit_eve_data.loading.working import ALONE, Made, Share, make_all
from lit_eve_data.packing.buckets import BucketPlan, BucketStep, ImageSource


class ImageView:
    """The images of some samples, at the sizes a policy gives them.

    Args:
        view: the samples.
        policy: sizes, or crops.
        cell: sides of all images are multiples of this many pixels.

    Raises:
        ValueError: if crops are no multiple of the cell.
    """

    def __init__(self, view: RecordView, policy: SizePolicy | Crop, cell: int) -> None:
        if isinstance(policy, Crop) and policy.edge % cell:
            raise ValueError(
                f"crops of {policy.edge} px are no multiple of the {cell} px that become one code: "
                f"use {policy.edge // cell * cell or cell}."
            )
        self.view = view
        self.policy = policy
        self.cell = cell
        counts = view.store.sidecar.num_images[view.indices]
        self._places = np.repeat(np.arange(len(view)), counts)  # (I,) the sample of each image
        self._numbers = np.arange(len(self._places)) - np.repeat(np.cumsum(counts) - counts, counts)

    def __len__(self) -> int:
        return len(self._places)

    def source(self, name: str, weight: float) -> ImageSource:
        """What the plan has to know."""
        sidecar = self.view.store.sidecar
        stored = sidecar.first_image[self.view.indices[self._places]] + self._numbers  # (I,)
        sizes, which = np.unique(sidecar.sizes[stored], axis=0, return_inverse=True)
        targets = [self.policy.target(h, w, self.cell) for h, w in sizes.tolist()]
        fitted = np.array(targets, np.int64).reshape(-1, 2)[which.reshape(-1)]
        return ImageSource(name, weight, fitted, self.view.chunk[self._places])

    def pixels(self, image: int, random: Random | None) -> Pixels:
        """One image at its size, (H, W, 3).

        Raises:
            BadSampleError: if it cannot be read.
        """
        sample = self.view[int(self._places[image])]
        pixels = sample.images[int(self._numbers[image])].pixels()
        return framed(pixels, self.policy, self.cell, random)


@dataclass(frozen=True)
class ImagesTask:
    """One batch of images to be made."""

    source: int
    size: tuple[int, int]
    images: Sequence[int]
    seeds: Sequence[str | None]
    """Of the random crop of each image; None takes the middle."""


@dataclass(frozen=True)
class ImageMaker:
    """Makes batches of images; what a worker process holds."""

    views: Sequence[ImageView]

    def __call__(self, task: ImagesTask) -> Made[ImageBatch]:
        """Read and stack; an image that fails is left out."""
        failed: list[tuple[str, str]] = []
        made: list[Pixels] = []
        for image, seed in zip(task.images, task.seeds, strict=True):
            random = None if seed is None else Random(seed)
            try:
                made.append(self.views[task.source].pixels(image, random))
            except BadSampleError as error:
                failed.append((error.reason, str(error)))
        stacked = np.stack(made) if made else np.zeros((0, *task.size, 3), np.uint8)
        pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2).float().div_(255)  # (B, 3, H, W)
        return Made(ImageBatch(pixels.contiguous()), len(task.images), failed)


class ImageLoader(ResumableLoader[ImagesTask, ImageBatch]):
    """Batches of a bucket plan, for ever, in virtual epochs of `steps` steps.

    Args:
        plan: which images come when.
        views: the images, one view for each source of the plan.
        steps: optimizer steps of a virtual epoch.
        share: this process's part of a step.
        workers: processes that read ahead; 0 reads in this one.

    Raises:
        ValueError: if a step cannot be shared equally.
    """

    def __init__(
        self,
        plan: BucketPlan,
        views: Sequence[ImageView],
        steps: int,
        share: Share = ALONE,
        workers: int = 0,
    ) -> None:
        if plan.batch % share.pieces:
            raise ValueError(
                f"a batch of {plan.batch} images cannot be shared equally by {share.world} "
                f"processes x {share.micro_batches} micro-batches: make it a multiple of "
                f"{share.pieces}."
            )
        self.plan = plan
        super().__init__(plan, self._divide, ImageMaker(views), steps, share, workers)

    def _divide(self, step: BucketStep) -> list[ImagesTask]:
        """This process's micro-batches of a step."""
        named = [
            (image, f"{self.plan.seed}/{step.number}/{place}")
            for place, image in enumerate(step.images)
        ]
        return [
            ImagesTask(step.source, step.size, [i for i, _ in piece], [seed for _, seed in piece])
            for piece in self.share.of(named)
        ]


class ImagePass:
    """One pass over held-out images, the same batches every time; crops are taken in the middle.

    Args:
        view: the images.
        batch: most images of a batch.
        limit: use only the first images; None uses all.
        share: this process's part; every rank gets as many batches, the last ones may be smaller.
        workers: processes that read ahead; 0 reads in this one.

    Raises:
        ValueError: if there are fewer images than processes.
    """

    def __init__(
        self,
        view: ImageView,
        batch: int,
        limit: int | None = None,
        share: Share = ALONE,
        workers: int = 0,
    ) -> None:
        sizes = view.source("held out", 1.0).sizes[:limit]
        if len(sizes) < share.world:
            raise ValueError(
                f"{len(sizes)} held-out images are too few for {share.world} processes: hold out "
                "more, or use fewer devices."
            )
        self._make = ImageMaker([view])
        self._workers = workers
        tasks = []
        for size in np.unique(sizes, axis=0).tolist():
            images = np.flatnonzero((sizes == size).all(axis=1)).tolist()
            for start in range(0, len(images), batch):
                part = images[start : start + batch]
                tasks.append(ImagesTask(0, (size[0], size[1]), part, [None] * len(part)))
        self._tasks = _dealt(tasks, share)

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[ImageBatch]:
        return (made.batch for made in make_all(self._make, self._tasks, self._workers))


def _dealt(tasks: list[ImagesTask], share: Share) -> list[ImagesTask]:
    """The tasks of one process; the largest are halved until every process has as many."""
    while len(tasks) % share.world:
        number = max(range(len(tasks)), key=lambda n: len(tasks[n].images))
        task = tasks[number]
        middle = len(task.images) // 2
        tasks[number : number + 1] = [
            ImagesTask(0, task.size, task.images[part], task.seeds[part])
            for part in (slice(middle), slice(middle, None))
        ]
    return tasks[share.rank :: share.world]
