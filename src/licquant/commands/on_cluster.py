"""``--cluster``: the files of encode and decode on many machines. See ``licquant/cluster``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from licquant.cluster.counts import Counts
from licquant.cluster.run import Finished
from licquant.cluster.run import run as run_on_cluster
from licquant.cluster.session import Cluster
from licquant.cluster.shards import Facts, Item
from licquant.cluster.shards import Work as ClusterWork
from licquant.cluster.sources import source_of
from licquant.commands.base import Report
from licquant.commands.coding_work import Decoding, Encoding, attempt
from licquant.commands.file_lists import STREAM, Job
from licquant.commands.model_search import embedded, models_in
from licquant.errors import LicquantError
from licquant.terminal import note, progress_bars, remark

__all__ = ["Cluster", "cluster_of", "code_files", "do_all"]


def cluster_of(wanted: bool, address: str | None, jobs: int | None, threads: int | None) -> Cluster | None:
    """By a command's options; None if it does its work here. ``LicquantError`` for an address without --cluster."""
    if address is not None and not wanted:
        raise LicquantError(f"--address {address}: goes with --cluster")
    return Cluster(address, jobs, threads or 1) if wanted else None


@dataclass(frozen=True)
class FileWork:
    """Files by the very function that codes them without a cluster."""

    how: Encoding | Decoding
    skip_existing: bool = False

    @property
    def columns(self) -> Mapping[str, str]:
        """Of both commands."""
        numbers = {"width": "int32", "height": "int32", "bytes": "int64", "bpp": "float64", "seconds": "float64"}
        return {**numbers, "artifact": "string"}

    @property
    def code(self) -> Sequence[str]:
        """All that makes a file from a file."""
        return ("licquant.commands.coding_work",)

    def models(self, subject: int) -> Sequence[Path]:
        """The models that the option names; a coded image names its own, by a hash."""
        model = self.how.model
        if model is None:
            return embedded() if isinstance(self.how, Encoding) else ()
        return models_in(model) if model.is_dir() else [model]

    def settings(self, subject: int) -> object:
        """All but the model's place, and the threads, on which no byte depends."""
        facts = asdict(self.how)
        del facts["model"], facts["run"]["threads"]
        return facts

    def absolute(self) -> FileWork:
        """The same from any folder."""
        model = self.how.model
        return self if model is None else replace(self, how=replace(self.how, model=model.absolute()))

    def start(self) -> Callable[[Item], Facts]:
        """A bad file is told, and stops no other."""
        work = self.how.start()
        return lambda item: attempt(Job(Path(item.source), Path(item.target)), work, self.skip_existing).record


def code_files(cluster: Cluster, jobs: Sequence[Job], work: FileWork, output: str, rows: Path | None) -> Report:
    """Every job, whatever becomes of the others; its status is 1 if one failed.

    rows: the folder for them; None: beside the output
    """
    if Path(STREAM) in (jobs[0].source, jobs[0].target):
        raise LicquantError("- stands for a stream of this machine: --cluster takes files")
    items = [Item(source_of(job.source), os.path.abspath(job.target)) for job in jobs]
    done = do_all(cluster, work.absolute(), items, rows or rows_beside(Path(output)))
    parts = [f"{count} {name}" for name, count in _also(done.counts) if count]
    line = ", ".join([f"{done.counts.done} of {len(items)} files written to {output}", *parts])
    return Report({**done.record, "output": output}, lambda: note(line), status=int(done.counts.failed > 0))


def rows_beside(output: Path) -> Path:
    """Where rows stand by default."""
    return output.with_name(f"{output.stem if output.suffix == '.json' else output.name}-rows")


def do_all(cluster: Cluster, work: ClusterWork, items: Sequence[Item], rows: Path) -> Finished:
    """``cluster.run``, with a bar; the first errors are remarks, the rows have all of them."""
    with _bar(len(items)) as moved:
        done = run_on_cluster(cluster, work, items, rows.absolute(), moved)
    for error in done.counts.errors:
        remark(error)
    if done.counts.failed > len(done.counts.errors):
        remark(f"{done.counts.failed - len(done.counts.errors)} more failed: see the column error in {rows}")
    record = done.record
    note(
        f"{record['files_per_second']:.1f} files a second on {done.workers} workers, "
        f"{record['seconds']:.1f} s, {record['connect_seconds']:.1f} of them to reach the cluster; rows in {rows}"
    )
    return done


def _also(counts: Counts) -> list[tuple[str, int]]:
    return [("there already", counts.kept), ("skipped", counts.skipped), ("failed", counts.failed)]


@contextmanager
def _bar(total: int) -> Iterator[Callable[[Counts], None]]:
    with progress_bars() as bars:
        task = bars.add_task("files", total=total)
        yield lambda counts: bars.update(task, completed=counts.items)
