"""What is to be done, and in which portions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from licquant.images import utf8

LARGEST = 256  # items a shard: some seconds to a minute of work, which is what the death of a process costs
_SHARDS_A_WORKER = 8  # so that the last ones to finish wait for little

Facts = dict[str, Any]  # what became of an item; a key "error" if it failed


@dataclass(frozen=True)
class Item:
    """One thing to do.

    source:  where the bytes are that are read (``sources``); they decide whether an earlier result still holds
    target:  the file that is written; none where the facts are the result
    subject: which of a work's models it is for
    """

    source: str
    target: str = ""
    subject: int = 0


class Work(Protocol):
    """What is done to items: pickled, sent to other machines, and there started once a process."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Facts that are columns of their own: name → type (of Arrow). All others are told as JSON."""

    @property
    def code(self) -> Sequence[str]:
        """Modules whose code, with all that they import, decides the result."""

    def models(self, subject: int) -> Sequence[Path]:
        """Files that decide the result, which must be the same on every machine."""

    def settings(self, subject: int) -> object:
        """What else decides the result, as JSON holds it."""

    def start(self) -> Callable[[Item], Facts]:
        """Load what is needed; then called with every item. An item's own fault is told by the facts."""


@dataclass(frozen=True)
class Shard:
    """first: index of the first item among all;  earlier: files with rows of an earlier run for some of the items"""

    items: tuple[Item, ...]
    first: int
    folder: Path
    earlier: tuple[Path, ...] = ()

    @property
    def part(self) -> Path:
        """The file for its rows, named by its place among all and by its items: parts sort as items do."""
        names = json.dumps([[item.source, item.target, item.subject] for item in self.items])
        return self.folder / f"part-{self.first:09d}-{hashlib.sha256(utf8(names)).hexdigest()[:12]}.parquet"

    def halves(self) -> list[Shard]:
        """The same in two shards. What its own part holds is known to both."""
        middle = len(self.items) // 2
        known = replace(self, earlier=(*self.earlier, self.part))
        left, right = self.items[:middle], self.items[middle:]
        return [replace(known, items=left), replace(known, items=right, first=self.first + middle)]


def shard_size(items: int, workers: int) -> int:
    """How many items go together: few enough that all workers end at about the same time, at most ``LARGEST``."""
    return max(1, min(LARGEST, items // (_SHARDS_A_WORKER * max(workers, 1))))


def cut(items: Sequence[Item], size: int, folder: Path) -> Iterator[Shard]:
    """The items in order, ``size`` a shard, without what is known from earlier runs. folder: for their rows"""
    for first in range(0, len(items), size):
        yield Shard(tuple(items[first : first + size]), first, folder)
