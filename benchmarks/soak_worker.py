"""One process of the soak: four threads that encode and decode with codecs they share, and with fresh ones.

Never imports torch. Prints a JSON record of itself every few seconds, the last one when it is done.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.symbols import digest, reference_agrees
from licquant.codec.codec import Codec, load
from licquant.codec.files.artifact import Artifact
from licquant.images import RGB, write_atomically

THREADS = 4
LARGEST = 192  # side of most images, in pixels
OVERSIZED, NARROW = 1100, 64  # sides of a few: more than one tile
STEP = 16  # the smallest stride of the models: sizes in between are padded to its multiples
SLOW_PIXELS = 1 << 13  # images up to this size are also checked with the slow reference
_ODDS_OF_OVERSIZED, _ODDS_OF_FRESH, _ODDS_OF_SLOW = 1 / 200, 1 / 30, 1 / 4


def random_image(rng: np.random.Generator) -> RGB:
    """uint8 of any size: smooth, noisy, flat or with sharp edges."""
    height, width = rng.integers(1, LARGEST + 1, 2)
    if rng.random() < _ODDS_OF_OVERSIZED:
        height, width = (OVERSIZED, min(width, NARROW)) if rng.random() < 0.5 else (min(height, NARROW), OVERSIZED)
    row, column = np.mgrid[:height, :width]
    wave = np.sin(row * rng.uniform(0, 0.5) + column * rng.uniform(0, 0.5) + rng.uniform(0, 6, (3, 1, 1)))
    values = rng.uniform(0, 255) + rng.uniform(0, 160) * wave
    match int(rng.integers(4)):
        case 0:
            values = values + rng.normal(0, rng.uniform(0, 80), values.shape)
        case 1:
            values = np.where(values > 128, 255, 0)
        case 2:
            values = np.full(values.shape, rng.integers(0, 256))
    return np.ascontiguousarray(np.moveaxis(np.clip(values, 0, 255), 0, -1).astype(np.uint8))


@dataclass
class Record:
    """What this process has done so far; written by several threads."""

    rounds: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    pixels: int = 0
    failures: list[dict[str, object]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, model: str, pixels: int, compared: Sequence[str]) -> None:
        with self.lock:
            self.rounds[model] += 1
            self.pixels += pixels
            self.compared.update(compared)

    def fail(self, **facts: object) -> None:
        with self.lock:
            self.failures.append(facts)


class Mailbox:
    """A folder through which the processes hand one another coded files and the digests of their symbols."""

    def __init__(self, folder: Path, me: int) -> None:
        self._folder, self._me = folder, me

    def send(self, name: str, data: bytes, symbols: str) -> None:
        """To the other process; not more than it keeps up with."""
        if sum(1 for _ in self._folder.glob(f"{self._me}-*")) < 8:
            write_atomically(self._folder / f"{self._me}-{symbols[:16]}-{name}", symbols.encode() + data)

    def receive(self) -> tuple[str, bytes, str] | None:
        """(model, coded file, digest) of the other, or None where nothing waits."""
        for path in self._folder.glob(f"{1 - self._me}-*"):
            taken = path.with_name(f"taken-{self._me}-{threading.get_ident()}")
            try:
                path.rename(taken)  # one thread gets it
            except FileNotFoundError:
                continue
            content = taken.read_bytes()
            taken.unlink()
            return path.name.split("-", 2)[2], content[64:], content[:64].decode()
        return None


class Worker:
    """models: their paths; share: of one core that this process may use on average; seconds: how long it works."""

    def __init__(self, models: Sequence[Path], mailbox: Mailbox, me: int, share: float, seconds: float) -> None:
        self._paths = {path.stem: path for path in models}
        self._threads = 1 if me == 0 else None  # codecs with a limit in one process, without in the other
        self._mailbox, self._share, self._seed = mailbox, share, me
        self._fast = {name: load(path, threads=self._threads) for name, path in self._paths.items()}
        self._exact = {name: self._load_exact(path) for name, path in self._paths.items()}
        self.record = Record()
        self._meet_all_sizes()
        self._start, self._cpu = time.monotonic(), time.process_time()
        self._end = self._start + seconds

    def _meet_all_sizes(self) -> None:
        """The engine keeps kernels for the sizes that it has met: what grows from here on is no such thing."""
        sides, narrow = range(STEP, LARGEST + 1, STEP), range(STEP, NARROW + 1, STEP)
        sizes = [*product(sides, sides), *product([OVERSIZED], narrow), *product(narrow, [OVERSIZED])]
        for codec in self._fast.values():
            for height, width in sizes:
                codec.decode(codec.encode(np.zeros((height, width, 3), dtype=np.uint8)))

    def run(self) -> None:
        """Until the end; prints a record every few seconds."""
        threads = [threading.Thread(target=self._rounds, args=(index,), daemon=True) for index in range(THREADS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self._say()
            for thread in threads:
                thread.join(timeout=10 / THREADS)
        del self._fast, self._exact
        gc.collect()
        self._say()

    def _rounds(self, index: int) -> None:
        rng = np.random.default_rng((self._seed, index))
        while time.monotonic() < self._end:
            seed = int(rng.integers(1 << 62))
            name = random.Random(seed).choice(sorted(self._paths))
            try:
                self._round(name, seed)
            except Exception as error:  # anything that is raised is a finding, and the others go on
                self.record.fail(model=name, seed=seed, problem=f"{type(error).__name__}: {error}")
            while self._ahead() and time.monotonic() < self._end:
                time.sleep(0.05)

    def _ahead(self) -> bool:
        used = time.process_time() - self._cpu
        return used > self._share * (time.monotonic() - self._start)

    def _round(self, name: str, seed: int) -> None:
        """Encode, decode, and hold the symbols of encoder, decoder, exact engine and slow reference together."""
        rng = np.random.default_rng(seed)
        rgb, compared = random_image(rng), ["decoder", "exact engine", "pixels"]
        codec = self._fast[name]
        if rng.random() < _ODDS_OF_FRESH:
            codec = load(self._paths[name], threads=self._threads)
            compared.append("fresh codec")
        coded, wanted = codec.encode(rgb), digest(codec.analyse(rgb))
        latents = self._fast[name].decode_symbols(coded)
        found = {"decoder": digest(latents), "exact engine": digest(self._exact[name].decode_symbols(coded))}
        wrong = [who for who, symbols in found.items() if symbols != wanted]
        if not np.array_equal(self._fast[name].decode(coded), codec.synthesise(latents.y, *rgb.shape[:2])):
            wrong.append("pixels")
        if rgb.shape[0] * rgb.shape[1] <= SLOW_PIXELS and rng.random() < _ODDS_OF_SLOW:
            compared.append("slow reference")
            if not reference_agrees(self._exact[name], latents):
                wrong.append("slow reference")
        self._mailbox.send(name, coded, wanted)
        received = self._mailbox.receive()
        if received is not None:
            model, data, symbols = received
            compared.append("other process")
            if digest(self._fast[model].decode_symbols(data)) != symbols:
                wrong.append("other process")
        for who in wrong:
            self.record.fail(model=name, seed=seed, size=rgb.shape[:2], problem=f"{who} differs")
        self.record.add(name, rgb.shape[0] * rgb.shape[1], compared)

    @staticmethod
    def _load_exact(path: Path) -> Codec:
        data = path.read_bytes()
        return Codec(Artifact.from_bytes(data), data[-32:-24], "exact")

    def _say(self) -> None:
        record = self.record
        with record.lock:
            said = {
                "seconds": time.monotonic() - self._start,
                "cpu_seconds": time.process_time() - self._cpu,
                "rounds": dict(record.rounds),
                "compared": dict(record.compared),
                "pixels": record.pixels,
                "failures": record.failures,
                "torch": "torch" in sys.modules,
                **usage(),
            }
        print(json.dumps(said), flush=True)


def usage() -> dict[str, int]:
    """Resident bytes, open file handles and threads of this process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "rss_bytes": 1024 * int(status["VmRSS"].split()[0]),
        "handles": len(os.listdir("/proc/self/fd")),
        "threads": int(status["Threads"]),
    }


def main(folder: str, models: str, me: str, share: str, seconds: str) -> None:
    paths = [Path(path) for path in json.loads(models)]
    Worker(paths, Mailbox(Path(folder), int(me)), int(me), float(share), float(seconds)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
