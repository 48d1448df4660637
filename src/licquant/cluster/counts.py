"""How many, how fast: of a shard, or of all that are done."""

from __future__ import annotations


class Counts:
    """Of a shard, or of many; all begin at none.

    done: made now;  kept: from an earlier run;  skipped: as the work says;  failed: with an error
    seconds: of processor time;  starts: of processes that loaded the models, in start_seconds together
    bytes_in, bytes_out: of files;  peak_bytes: of the largest process;  errors: the first of them
    """

    def __init__(self, *nodes: str) -> None:
        self.done = self.kept = self.skipped = self.failed = 0
        self.seconds = self.start_seconds = 0.0
        self.starts = self.bytes_in = self.bytes_out = self.peak_bytes = 0
        self.nodes = set(nodes)
        self.errors: list[str] = []

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
