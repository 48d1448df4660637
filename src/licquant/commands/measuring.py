"""``evaluate --cluster``: images measured on many machines, by the functions that measure them here."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from licquant.cluster.rows import Row, read_part, told
from licquant.cluster.session import Cluster
from licquant.cluster.shards import Facts, Item
from licquant.cluster.sources import source_of
from licquant.codec.codec import load
from licquant.commands.on_cluster import do_all
from licquant.errors import LicquantError
from licquant.evaluate import widths
from licquant.evaluate.codec_results import ImageResult, evaluate_codec
from licquant.evaluate.rd import check_loss
from licquant.evaluate.reference import evaluate_reference
from licquant.train.card import load_checkpoint

_TYPES = {str: "string", int: "int64", float: "float64"}


@dataclass(frozen=True)
class Subject:
    """What is measured: an artifact, or an FP32 checkpoint where ``model`` names its architecture.

    arguments: of that, as JSON
    """

    path: Path
    lmbda: float
    metric: str
    model: str | None = None
    arguments: str = "null"


@dataclass(frozen=True)
class Measuring:
    """Images through subjects; an item's row is an ``ImageResult``. device: of OpenVINO"""

    subjects: tuple[Subject, ...]
    threads: int
    device: str

    @property
    def columns(self) -> Mapping[str, str]:
        """The figures of an image."""
        return {field.name: _TYPES[field.type] for field in fields(ImageResult) if field.type in _TYPES}

    @property
    def code(self) -> Sequence[str]:
        """All that makes figures from a picture."""
        return (__name__,)

    def models(self, subject: int) -> Sequence[Path]:
        """The file that is measured."""
        return [self.subjects[subject].path]

    def settings(self, subject: int) -> object:
        """The loss, and what the reference is; sums of its floats depend on the threads."""
        of = self.subjects[subject]
        reference = [of.model, of.arguments, self.threads] if of.model else None
        return [of.lmbda, of.metric, reference, self.device]

    def start(self) -> Callable[[Item], Facts]:
        """A picture that cannot be measured is told, and stops no other."""
        torch.set_num_threads(self.threads)
        measures = functools.lru_cache(maxsize=1)(self._measure)

        def do(item: Item) -> Facts:
            try:
                return asdict(measures(item.subject)(Path(item.source)))
            except LicquantError as error:
                return {"error": str(error)}
            except MemoryError:
                return {"error": f"{item.source}: not enough memory"}

        return do

    def _measure(self, subject: int) -> Callable[[Path], ImageResult]:
        of = self.subjects[subject]
        if of.model:
            model = load_checkpoint(of.path, of.model, json.loads(of.arguments))
            return lambda path: evaluate_reference(model, [path], of.lmbda, metric=of.metric)[0]
        check_loss(of.lmbda, of.metric, f"{of.path}: λ")
        codec = widths.Recording(load(of.path, threads=self.threads, device=self.device))

        def measure(path: Path) -> ImageResult:
            codec.widths.clear()
            (result,) = evaluate_codec(codec, [path], of.lmbda, metric=of.metric)
            return ImageResult(**{**vars(result), "widths": codec.widths[0]})

        return measure


def measure_on_cluster(
    cluster: Cluster, subjects: Sequence[Subject], device: str, paths: Sequence[Path], rows: Path
) -> tuple[list[Path], dict[Path, list[ImageResult]]]:
    """The images that every subject could be measured on, and the results: path of the subject → one for each image.

    ``LicquantError`` if there is none, and as ``cluster.run``.
    """
    work = Measuring(tuple(replace(s, path=s.path.absolute()) for s in subjects), cluster.threads, device)
    absolute = {path: source_of(path) for path in paths}
    items = [Item(source, "", subject) for subject in range(len(subjects)) for source in absolute.values()]
    done = do_all(cluster, work, items, rows)
    found: dict[tuple[int, str], Row] = {}
    # A part has its rows in the order of the items, and so have the parts.
    for item, row in zip(items, (row for part in done.parts for row in read_part(part)), strict=True):
        found[item.subject, told(item.source)] = row
    numbers = range(len(subjects))
    usable = [p for p in paths if not any(found[number, told(absolute[p])]["error"] for number in numbers)]
    if not usable:
        raise LicquantError(f"no image could be measured: see the column error in {rows}")
    return usable, {
        subject.path: [_result(found[number, told(absolute[path])]) for path in usable]
        for number, subject in enumerate(subjects)
    }


def _result(row: Row) -> ImageResult:
    figures: dict[str, Any] = {field.name: row[field.name] for field in fields(ImageResult) if field.name in row}
    return ImageResult(**figures, widths=json.loads(row["record"]).get("widths", {}))
