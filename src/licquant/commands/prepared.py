"""What all quantizations of a checkpoint have in common: made once, and sent to every machine of a cluster once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from licquant.cluster.session import Cluster
from licquant.cluster.tasks import each
from licquant.commands.toolkit import progress
from licquant.images import calibration_files, read_calibration
from licquant.images.calibration import Calibration
from licquant.quant.calibrate import Calibrated, calibrate
from licquant.train.card import load_checkpoint, loss_of, name_of


@dataclass(frozen=True, eq=False)
class Prepared:
    """A checkpoint, calibrated, and the images with which it was."""

    calibrated: Calibrated
    calibration: Calibration


def prepare(checkpoint: Path, model: str | None, calib: Path, strict: bool = False) -> Prepared:
    """As every quantization would do it for itself; errors as those."""
    network = load_checkpoint(checkpoint, name_of(checkpoint, model), None)
    calibration = read_calibration(calibration_files(calib), strict)
    with progress() as on_progress:
        calibrated = calibrate(network, calibration.images, loss_of(checkpoint)[1], on_progress)
    return Prepared(calibrated, calibration)


class Job(Protocol):
    """Something to make of a checkpoint."""

    @property
    def checkpoint(self) -> Path:
        """The float model."""


J = TypeVar("J", bound=Job)
R = TypeVar("R")


def make_each(
    cluster: Cluster, make: Callable[[J, Prepared], R], prepared: Mapping[Path, Prepared], jobs: Sequence[J]
) -> Iterator[tuple[J, R]]:
    """Every job with what ``make``, a function of a module, says of it, each a Ray task, as they end.

    Paths of the jobs are absolute. Errors as those of ``make``, and as ``cluster.tasks.each``.
    """
    return each(cluster, _Making(make, prepared), uuid.uuid4().hex, jobs, [make.__module__])


@dataclass(frozen=True, eq=False)
class _Making(Generic[J, R]):
    """What a process of a cluster keeps from job to job."""

    make: Callable[[J, Prepared], R]
    prepared: Mapping[Path, Prepared]

    def __call__(self, job: J) -> R:
        return self.make(job, self.prepared[job.checkpoint])
