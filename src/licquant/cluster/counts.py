"""How many, how fast: of a shard, or of all that are done."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Counts:
    """Of a shard, or of many.

    done: made now;  kept: from an earlier run;  skipped: as the work says;  failed: with an error
    seconds: of processor time;  starts: of processes that loaded the models, in start_seconds together
    bytes_in, bytes_out: of files;  peak_bytes: of the largest process;  errors: the first of them
    """

    done: int = 0
    kept: int = 0
    skipped: int = 0
    failed: int = 0
    seconds: float = 0.0
    starts: int = 0
    start_seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    peak_bytes: int = 0
    nodes: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    @property
    def items(self) -> int:
        """All of them."""
        return self.done + self.kept + self.skipped + self.failed

    def add(self, other: Counts, most_errors: int) -> None:
        """Count the other's, too."""
        for name in ("done", "kept", "skipped", "failed", "seconds", "starts", "start_seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.bytes_in, self.bytes_out = self.bytes_in + other.bytes_in, self.bytes_out + other.bytes_out
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)
        self.nodes |= other.nodes
        self.errors = (self.errors + other.errors)[:most_errors]
