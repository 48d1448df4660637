"""What runs on the machines of a cluster: a shard, by a work that a process starts once."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from licquant import __version__
from licquant.cache import code_version
from licquant.cluster.counts import Counts
from licquant.cluster.rows import Row, read_part, row_of, told, write_part
from licquant.cluster.shards import Facts, Item, Shard, Work
from licquant.cluster.sources import local
from licquant.digests import file_sha256
from licquant.errors import DataError, LicquantError

_ERRORS_TOLD = 3  # of a shard, to whoever waits for the run; the rows have them all


@dataclass(frozen=True)
class Order:
    """What the workers are told once a run.

    code, models: what the machine that gives the order has: hash of the code, SHA-256 of every subject's models
    made_by:      of every subject, as rows have it
    """

    work: Work
    code: str
    models: tuple[tuple[str, ...], ...]
    made_by: tuple[str, ...]

    def key(self, item: Item) -> tuple[str, str, str]:
        """What rows of an item's result have: input, output, made_by."""
        return told(item.source), told(item.target), self.made_by[item.subject]


def give_order(work: Work, subjects: int = 1) -> Order:
    """By what this machine has; ``DataError`` for a model that is not there."""
    code = code_version(tuple(work.code))
    models = tuple(tuple(map(file_sha256, work.models(subject))) for subject in range(subjects))
    contents = (json.dumps([code, of, work.settings(subject)], default=str) for subject, of in enumerate(models))
    return Order(work, code, models, tuple(hashlib.sha256(content.encode()).hexdigest() for content in contents))


def do_shard(shard: Shard, order: Order, node: str) -> Counts:
    """Do what is not done yet, and write the shard's rows.

    ``LicquantError`` for what would befall every item: another version of licquant or of a model on this machine, or
    rows that cannot be written. What befalls one item is told in its row.
    """
    counts = Counts(node)
    do = _started(order, node, counts)
    earlier = _earlier(shard)
    before = time.process_time()
    rows = [_row(item, do, order, node, earlier.get(order.key(item), ()), counts) for item in shard.items]
    counts.seconds = time.process_time() - before
    counts.peak_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    write_part(shard.part, rows, order.work.columns)
    return counts


def give_up(shard: Shard, order: Order, reason: str) -> Counts:
    """The rows of a shard whose process dies whenever it is done."""
    counts = Counts()
    fail: Callable[[Item], Facts] = lambda item: {"error": f"{item.source}: {reason}"}  # noqa: E731
    write_part(shard.part, [_row(item, fail, order, "", (), counts) for item in shard.items], order.work.columns)
    return counts


def check_same(order: Order, node: str) -> None:
    """``LicquantError`` unless this machine has the code and the models of the one that gave the order."""
    code = code_version(tuple(order.work.code))
    if code != order.code:
        raise LicquantError(
            f"{node} has other code, licquant {__version__} ({code}), than the machine that gives the work "
            f"({order.code}): install the same licquant, with the same libraries, on all of them"
        )
    for subject, digests in enumerate(order.models):
        paths = order.work.models(subject)
        if len(paths) != len(digests):
            raise LicquantError(
                f"{node} has {len(paths)} models where the machine that gives the work has {len(digests)}"
            )
        for path, sha256 in zip(paths, digests, strict=True):
            if not path.is_file():
                raise LicquantError(f"{node} has no {path}: a model must be on every machine, under the same name")
            if file_sha256(path) != sha256:
                raise LicquantError(f"{node} has another {path} than the machine that gives the work")


def _started(order: Order, node: str, counts: Counts) -> Callable[[Item], Facts]:
    """The work; loading it is counted, where the process has not got it from another shard."""
    loaded, begun = _start.cache_info().misses, time.perf_counter()
    do = _start(order, node)
    if _start.cache_info().misses > loaded:
        counts.starts, counts.start_seconds = 1, time.perf_counter() - begun
    return do


@functools.lru_cache(maxsize=1)
def _start(order: Order, node: str) -> Callable[[Item], Facts]:
    check_same(order, node)
    return order.work.start()


def _earlier(shard: Shard) -> dict[tuple[str, str, str], list[Row]]:
    """What earlier runs say of these files, the shard's own last."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for part in (*shard.earlier, shard.part):
        for row in read_part(part):
            found.setdefault((row["input"], row["output"] or "", row["made_by"]), []).append(row)
    return found


def _row(
    item: Item, do: Callable[[Item], Facts], order: Order, node: str, earlier: Sequence[Row], counts: Counts
) -> Row:
    """The row of an item: an earlier one that still holds, else of what is done now."""
    told_of = functools.partial(_told, item, order=order, node=node, counts=counts)
    try:
        with local(item.source) as place:
            of_source = _sha256(place)
            of_target = _sha256(item.target) if earlier and item.target else None
            for row in earlier:
                known = row["input_sha256"], row["output_sha256"]
                if not row["error"] and of_source and known == (of_source, of_target):
                    counts.kept += 1
                    return row
            facts = do(replace(item, source=place))
            if facts.get("error"):
                return told_of({**facts, "error": facts["error"].replace(place, item.source)}, of_source)
            return told_of(facts, of_source, os.path.getsize(place))
    except DataError as error:  # of the source: whatever else is wrong with an item is told by the facts
        return told_of({"error": str(error)}, None)


def _told(
    item: Item, facts: Facts, of_source: str | None, size: int = 0, *, order: Order, node: str, counts: Counts
) -> Row:
    """The row, counted. of_source: SHA-256 (hex) of what was read;  size: of that, bytes"""
    source, target, made_by = order.key(item)
    written = item.target and not facts.get("error") and not facts.get("skipped")
    row = row_of(
        {
            "input": source,
            "output": target or None,
            "input_sha256": of_source,
            "output_sha256": _sha256(item.target) if written else None,
            "made_by": made_by,
            "node": node,
        },
        facts,
        order.work.columns,
    )
    if row["error"]:
        counts.failed += 1
        counts.errors = [*counts.errors, row["error"]][:_ERRORS_TOLD]
    elif facts.get("skipped"):
        counts.skipped += 1
    else:
        counts.done += 1
        counts.bytes_in += size
        counts.bytes_out += os.path.getsize(item.target) if item.target else 0
    return row


def _sha256(name: str) -> str | None:
    """None for a file that is not there, or cannot be read."""
    try:
        return file_sha256(name)
    except (DataError, ValueError):  # ValueError: a name that cannot be one of a file
        return None
