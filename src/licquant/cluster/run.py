"""The driver: gives shards to Ray, a few more than can be worked on, and counts what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from licquant.cluster.counts import Counts
from licquant.cluster.rows import make_folder, parts_in, read_part
from licquant.cluster.session import Cluster, connected, workers_of
from licquant.cluster.shards import Item, Shard, Work, cut, shard_size
from licquant.cluster.worker import Order, do_shard, give_order, give_up
from licquant.errors import LicquantError

ERRORS_TOLD = 20
_TRIES = 4  # how often a process may die of one item
_TELL_SECONDS = 1.0

OnCounts = Callable[[Counts], object]


@dataclass(frozen=True)
class Finished:
    """A run. workers: the most at the same time;  connect_seconds: until the cluster was there"""

    counts: Counts
    rows: Path
    parts: list[Path]
    workers: int
    seconds: float
    connect_seconds: float
    deaths: int

    @property
    def record(self) -> dict[str, Any]:
        """What ``--json`` prints of it."""
        counts = self.counts
        return {
            "rows": str(self.rows),
            "files": counts.items,
            "written": counts.done,
            "kept": counts.kept,
            "skipped": counts.skipped,
            "failed": counts.failed,
            "errors": counts.errors,
            "seconds": self.seconds,
            "connect_seconds": self.connect_seconds,
            "files_per_second": (counts.done + counts.kept) / max(self.seconds - self.connect_seconds, 1e-9),
            "cpu_seconds": counts.seconds,
            "bytes_in": counts.bytes_in,
            "bytes_out": counts.bytes_out,
            "peak_bytes": counts.peak_bytes,
            "workers": self.workers,
            "nodes": sorted(counts.nodes),
            "starts": counts.starts,
            "start_seconds": counts.start_seconds,
            "deaths": self.deaths,
        }


def run(cluster: Cluster, work: Work, items: Sequence[Item], rows: Path, on_counts: OnCounts) -> Finished:
    """Do every item, whatever becomes of the others; what the rows of an earlier run say, and still holds, is kept.

    rows: a folder for them, made if it is not there
    on_counts: called as shards come back

    ``LicquantError`` for what is wrong with all of it: no cluster, a machine with another version, rows that cannot be
    written. What was done stays, and the same call goes on from there.
    """
    begun = time.monotonic()
    order = give_order(work, 1 + max(item.subject for item in items))
    make_folder(rows)
    with connected(cluster) as ray:
        connect_seconds = time.monotonic() - begun
        size = shard_size(len(items), workers_of(ray, cluster))
        driver = _Driver(ray, cluster, order, on_counts)
        driver.work_off(_with_earlier(list(cut(items, size, rows)), order))
    written = {part.name for part in driver.parts}
    for part in parts_in(rows):
        if part.name not in written:
            part.unlink(missing_ok=True)
    seconds = time.monotonic() - begun
    return Finished(driver.counts, rows, sorted(driver.parts), driver.workers, seconds, connect_seconds, driver.deaths)


def _with_earlier(shards: Sequence[Shard], order: Order) -> Iterator[Shard]:
    """The shards, each with the parts of another division that know some of its items."""
    own = {shard.part.name for shard in shards}
    folder = shards[0].folder
    where: dict[tuple[str, str, str], Path] = {}
    for part in parts_in(folder):
        if part.name not in own:
            for row in read_part(part, ["input", "output", "made_by"]):
                where[row["input"], row["output"] or "", row["made_by"]] = part
    for shard in shards:
        known = {where[key] for key in map(order.key, shard.items) if key in where} if where else set()
        yield replace(shard, earlier=tuple(sorted(known)))


@dataclass
class _Driver:
    ray: ModuleType
    cluster: Cluster
    order: Order
    on_counts: OnCounts
    counts: Counts = field(default_factory=Counts)
    parts: list[Path] = field(default_factory=list)
    workers: int = 0
    deaths: int = 0

    def work_off(self, shards: Iterator[Shard]) -> None:
        """Every shard; no more of them wait at Ray than keep all workers busy."""
        given = self.ray.put(self.order)
        waiting: dict[Any, Shard] = {}
        again: list[Shard] = []
        asked = -_TELL_SECONDS
        while True:
            if time.monotonic() - asked >= _TELL_SECONDS:  # machines come and go
                there, asked = workers_of(self.ray, self.cluster), time.monotonic()
                self.workers = max(self.workers, there)
            while len(waiting) < self._most(there):
                shard = again.pop() if again else next(shards, None)
                if shard is None:
                    break
                waiting[self._submit(shard, given)] = shard
            if not waiting:
                return
            ready, _ = self.ray.wait(list(waiting), timeout=_TELL_SECONDS)
            for reference in ready:
                again += self._collected(reference, waiting.pop(reference))
            self.on_counts(self.counts)

    def _most(self, workers: int) -> int:
        return self.cluster.jobs or 2 * max(workers, 1)

    def _submit(self, shard: Shard, given: Any) -> Any:
        """What kills a process is found by halving; a kill from outside meets no item that often."""
        tries = _TRIES if len(shard.items) == 1 else 2
        remote = self.ray.remote(num_cpus=self.cluster.threads, max_retries=tries - 1)(_task)
        return remote.remote(shard, given)

    def _collected(self, reference: Any, shard: Shard) -> list[Shard]:
        """Count what came back; the shards that are to be done in its place, if its process died."""
        errors = self.ray.exceptions
        try:
            counts = self.ray.get(reference)
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, LicquantError):
                raise cause from None
            raise LicquantError(f"a worker failed: {_last_line(error)}") from error
        except errors.RayError as error:
            self.deaths += 1
            if len(shard.items) > 1:
                return shard.halves()
            counts = give_up(shard, self.order, f"the process that worked on it died {_TRIES} times ({_kind(error)})")
        self.counts.add(counts, ERRORS_TOLD)
        self.parts.append(shard.part)
        return []


def _task(shard: Shard, order: Order) -> Counts:
    """What Ray runs."""
    import ray

    return do_shard(shard, order, ray.util.get_node_ip_address())


def _kind(error: Exception) -> str:
    return type(error).__name__


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1][:300] if lines else _kind(error)
