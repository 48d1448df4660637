"""What the tables of ``licquant reproduce`` are made of: a way to quantize, at a checkpoint and a seed.

    cell (way × checkpoint × seed) ──licquant quantize or finetune──> artifact in the folder

A cell that is finished is not made again, one that was interrupted goes on, and tables in one folder share their cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from licquant.cluster.session import Cluster, connected
from licquant.commands import finetune as finetune_command
from licquant.commands.base import Report
from licquant.commands.compare import is_made
from licquant.commands.prepared import Prepared, make_each, prepare
from licquant.commands.quantize import QuantizeOptions, command_line, quantize
from licquant.commands.toolkit import lmbdas_of
from licquant.dynamic.settings import DynamicSettings
from licquant.errors import LicquantError, ModelError
from licquant.evaluate.artifacts import Candidate
from licquant.images import calibration_files
from licquant.models.shards import whole_of
from licquant.quant.in_training.finetune_settings import DISTANCE_AWARE, STRAIGHT_THROUGH
from licquant.terminal import note, say
from licquant.train.card import lmbda_of, name_of
from licquant.train.progress import INTERRUPTED
from licquant.train.settings import CARD, RunOptions


@dataclass(frozen=True)
class Row:
    """One way to train.

    name:       as in the paper's table
    quantizer:  of ``FinetuneRecipe``
    estimator:  the same
    widths:     one: of all weights and activations; several: candidates, one of which is chosen for stage and image
    dynamic:    (model, candidates and average) of families that have others, instead of these and of their mean
    reconstruction: steps of it before the training; 0: that starts from weights rounded to nearest
    """

    name: str
    quantizer: str
    estimator: str
    widths: tuple[int, ...] = (8,)
    dynamic: tuple[tuple[str, DynamicSettings], ...] = ()
    reconstruction: int = 0

    @property
    def key(self) -> str:
        """What tells its artifacts from other ways', in a file name."""
        own, reconstructed = "-own" * bool(self.dynamic), "-reconstructed" * bool(self.reconstruction)
        return f"{self.quantizer}-{self.estimator}-{'.'.join(map(str, self.widths))}{own}{reconstructed}"

    def widths_for(self, model: str) -> dict[str, Any]:
        """What ``FinetuneOptions`` is told of them."""
        if len(self.widths) == 1:
            return {"budget": f"bits={self.widths[0]}", "act_bits": self.widths[0]}
        return {"dynamic": dict(self.dynamic).get(model) or DynamicSettings(self.widths)}

    def seeds(self, asked: int) -> range:
        """Every seed is another training."""
        return range(asked)


@dataclass(frozen=True)
class AfterTraining:
    """One way without training: ``licquant quantize``.

    name: as in the paper's table;  others: its options, steps those of reconstruction, 0 rounds to nearest
    """

    name: str
    method: str
    budget: str
    act_bits: int = 8
    max_bits: int = 8
    steps: int = 250

    @property
    def key(self) -> str:
        """What tells its artifacts from other ways', in a file name."""
        return f"{self.method}-{self.budget}-w{self.max_bits}-a{self.act_bits}-steps{self.steps}"

    def seeds(self, asked: int) -> range:
        """Nothing in it is drawn."""
        return range(1)


Way = Row | AfterTraining

_S, _D, _SETS = STRAIGHT_THROUGH, DISTANCE_AWARE, (6, 8, 10)
NEAREST = AfterTraining("FPQ", "uniform", "bits=8", steps=0)
DPA_DQ = Row("DPA-DQ {6,8,10}", "dpa", _D, _SETS)
DPA = Row("DPA, DGM", "dpa", _D)
# Where a BD-rate stands beside the paper's, whose trainings are long: a short one does not make up for the rounding.
DPA_RECONSTRUCTED = replace(DPA, reconstruction=250)
# At the averages of table 1, without which a BD-rate of dynamic widths says little, of candidates that suit them: by
# what their stages lose at each width (``benchmarks.stage_widths``). Those of Cheng 2020 that resample nothing have 4.
DPA_DQ_AS_PRINTED = replace(
    DPA_DQ,
    name="DPA-DQ, bits as printed",
    dynamic=(
        ("bmshj2018-hyperprior", DynamicSettings((6, 7, 8), average_bits=7.03)),
        ("cheng2020-anchor", DynamicSettings((4, 6, 8), average_bits=6.19)),
        ("elic2022-official", DynamicSettings((6, 7, 8), average_bits=6.95)),
    ),
)

_CHECKPOINTS = (".pt", ".pth", ".licw", ".safetensors")


def checkpoints_in(folder: Path) -> list[Path]:
    """Those with a model card beside them, by name, in whole files or in shards; ``ModelError`` if there is none."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix in _CHECKPOINTS] if folder.is_dir() else []
    found = dict.fromkeys(path for path in map(_whole, files) if path.with_suffix(CARD).is_file())
    if not found:
        raise ModelError(f"{folder}: a folder of checkpoints with model cards beside them is wanted")
    return list(found)


def _whole(path: Path) -> Path:
    return whole_of(path) or path


# What every cell of a table is trained with. Small: meant for an hour on two cores and one checkpoint of the scale
# hyperprior; full: for a GPU.
SMALL: Mapping[str, Any] = {"steps": 60, "batch": 4, "crop": 128, "large_from": 1.0, "warmup": 10}
FULL: Mapping[str, Any] = {"steps": 10_000, "batch": 16, "crop": 256, "large_from": 1.0, "warmup": 200}


@dataclass(frozen=True)
class ReproduceOptions:
    """The options of ``licquant reproduce``; a result says which of them it needs.

    model:                of all checkpoints; None: of each by its card or its weights
    train, calib, images: folders of training, calibration and test images
    seeds:                how many cells there are for each row and checkpoint
    steps:                of every finetune; None: those of the size
    full:                 for a GPU
    artifact:             what figure 6 shows; None: the DPA-DQ cell, which is made if need be
    cluster:              for cells and measurements; None for this process
    """

    output: Path
    model: str | None = None
    checkpoints: Sequence[Path] = ()
    calib: Path | None = None
    train: Path | None = None
    images: Path | None = None
    artifact: Path | None = None
    seeds: int = 3
    steps: int | None = None
    full: bool = False
    threads: int | None = None
    cache: Path | None = None
    cluster: Cluster | None = None

    @property
    def size(self) -> dict[str, Any]:
        """Settings of the recipe."""
        given = {} if self.steps is None else {"steps": self.steps}
        return {**(FULL if self.full else SMALL), **given}

    @property
    def families(self) -> dict[str, list[Path]]:
        """Model → its checkpoints, both in the order in which they are given."""
        found: dict[str, list[Path]] = {}
        for checkpoint in self.checkpoints:
            found.setdefault(name_of(checkpoint, self.model), []).append(checkpoint)
        return found


@dataclass(frozen=True)
class Cell:
    """A way to quantize at a checkpoint and a seed; size, command: of the process that wants it"""

    way: Way
    seed: int
    checkpoint: Path
    options: ReproduceOptions
    size: Mapping[str, Any]
    command: str

    @property
    def output(self) -> Path:
        """Its artifact."""
        return self.options.output / f"{self.checkpoint.stem}-{self.way.key}-seed{self.seed}.licq"


class Interrupted(Exception):
    """Somebody wanted a cell to stop; what it has done is saved."""


def interrupted(name: str) -> Report:
    """What stands for a table whose making was stopped and can go on."""
    line = f"{name}: interrupted; the same command goes on from there"
    return Report({"table": name, "status": INTERRUPTED}, lambda: say(line))


def check_inputs(options: ReproduceOptions) -> None:
    """``LicquantError`` for folders and checkpoints that are missing, or checkpoints that cannot be told apart."""
    needed = {"--checkpoint": options.checkpoints, "--calib": options.calib, "--data": options.train}
    missing = [name for name, value in {**needed, "--images": options.images}.items() if not value]
    if missing:
        raise LicquantError(f"this result is made by finetuning: it needs {', '.join(missing)}")
    if options.seeds < 1:
        raise LicquantError(f"seeds = {options.seeds}: must be at least 1")
    for checkpoints in options.families.values():
        lmbdas_of(checkpoints)
    assert options.calib is not None
    calibration_files(options.calib)


@contextmanager
def ready_to_run(options: ReproduceOptions) -> Iterator[ReproduceOptions]:
    """The options with the threads that there are, where the cluster, if they name one, is connected."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    cluster = options.cluster and replace(options.cluster, threads=torch.get_num_threads())
    with connected(cluster) if cluster else nullcontext():
        yield replace(options, cluster=cluster)


def make_cells(ways: Sequence[Way], options: ReproduceOptions) -> dict[tuple[Way, int], list[Path]]:
    """(way, seed) → its artifacts, one for each checkpoint; ``Interrupted`` if somebody wanted a cell to stop."""
    alone = replace(options, cluster=None)
    cells = [
        Cell(way, seed, checkpoint, alone, options.size, command_line())
        for way in ways
        for seed, checkpoint in product(way.seeds(options.seeds), options.checkpoints)
    ]
    if not all(_on_cluster(options.cluster, cells) if options.cluster else _in_turn(cells)):
        raise Interrupted
    made = dict[tuple[Way, int], list[Path]]()
    for cell in cells:
        made.setdefault((cell.way, cell.seed), []).append(cell.output)
    return made


def _in_turn(cells: Sequence[Cell]) -> Iterator[bool]:
    """Whether each was made."""
    for number, cell in enumerate(cells, 1):
        note(f"{number}/{len(cells)} {cell.output.name}")
        yield _make(cell)


def _on_cluster(cluster: Cluster, cells: Sequence[Cell]) -> Iterator[bool]:
    """The same: checkpoints are calibrated here, then every cell is a task."""
    options = cells[0].options
    assert options.calib is not None
    prepared = {path.absolute(): prepare(path, options.model, options.calib) for path in options.checkpoints}
    places = {name: path.absolute() for name in _PLACES if (path := getattr(options, name)) is not None}
    absolute = replace(options, **places)
    there = [replace(cell, checkpoint=cell.checkpoint.absolute(), options=absolute) for cell in cells]
    alike = replace(cluster, threads=options.threads or torch.get_num_threads())
    for number, (cell, whole) in enumerate(make_each(alike, _make, prepared, there), 1):
        note(f"{number}/{len(cells)} {cell.output.name}")
        yield whole


_PLACES = ("output", "calib", "train", "images", "cache")


def _make(cell: Cell, prepared: Prepared | None = None) -> bool:
    """Make its artifact, unless it is there; False if somebody wanted it to stop."""
    if isinstance(cell.way, Row):
        return _finetune(cell, cell.way, prepared)
    return _quantize(cell, cell.way, prepared)


def _quantize(cell: Cell, way: AfterTraining, prepared: Prepared | None) -> bool:
    options = cell.options
    assert options.calib is not None
    job = QuantizeOptions(
        model=name_of(cell.checkpoint, options.model), checkpoint=cell.checkpoint, calib=options.calib,
        output=cell.output, method=way.method, budget=way.budget, act_bits=way.act_bits, max_bits=way.max_bits,
        steps=way.steps, lmbda=lmbda_of(cell.checkpoint), cache=options.cache, command=cell.command,
    )  # fmt: skip
    if not is_made(job):
        quantize(job, prepared)
    return True


def _finetune(cell: Cell, row: Row, prepared: Prepared | None) -> bool:
    options = cell.options
    assert options.calib is not None
    assert options.train is not None
    model = name_of(cell.checkpoint, options.model)
    recipe = {"model": model, "quantizer": row.quantizer, "estimator": row.estimator, "seed": cell.seed}
    run = RunOptions(
        options.train, cell.output, init=cell.checkpoint, resume=True, threads=options.threads, cache=options.cache,
        accelerator="auto",
    )  # fmt: skip
    wanted = finetune_command.FinetuneOptions(
        recipe={**recipe, **cell.size}, run=run, calib=options.calib, tables=options.cache,
        reconstruction=row.reconstruction, **row.widths_for(model),
    )  # fmt: skip
    found = finetune_command.run(wanted, prepared)
    return bool(found.record["status"] != INTERRUPTED)


def in_order(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Along a curve."""
    return tuple(sorted(candidates, key=lambda candidate: candidate.lmbda))
