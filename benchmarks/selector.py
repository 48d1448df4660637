"""What the dynamic bit-width selectors take of encoding and decoding: the same widths, chosen and given.

OPENBLAS_NUM_THREADS=2 python -m benchmarks.selector --model model.licq --image kodim01.png -o DIR
"""

import time
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console

import licquant
from licquant.evaluate import provenance
from licquant.images import RGB, read_image
from licquant.program.arithmetic import Handed
from licquant.program.chain import Chain
from licquant.reports import report


class TimedChain(Chain):
    """Counts the seconds that choosing takes."""

    seconds = 0.0

    def choose(self, selected: Handed) -> tuple[int, ...]:
        start = time.perf_counter()
        widths = super().choose(selected)
        self.seconds += time.perf_counter() - start
        return widths


def shares(codec: licquant.Codec, rgb: RGB, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of encoding and decoding, of choosing within them, and the median share of the latter.

    Each share is of one run: whatever else the machine does slows both alike.
    """
    chains = {name: _timed(codec, name) for name in ("g_a", "g_s")}
    data = codec.encode(rgb)
    codec.decode(data)
    times: dict[str, list[tuple[float, float]]] = {"encode": [], "decode": []}
    for _ in range(repeats):
        for what, chain, work in (
            ("encode", chains["g_a"], lambda: codec.encode(rgb)),
            ("decode", chains["g_s"], lambda: codec.decode(data)),
        ):
            chain.seconds = 0.0
            start = time.perf_counter()
            work()
            times[what].append((time.perf_counter() - start, chain.seconds))
    return {
        what: {
            "ms": 1e3 * median(whole for whole, _ in found),
            "selector_ms": 1e3 * median(part for _, part in found),
            "share": median(part / (whole - part) for whole, part in found),
        }
        for what, found in times.items()
    }


def _timed(codec: licquant.Codec, name: str) -> TimedChain:
    """The chain of one of the codec's parts, which now is timed."""
    transform = getattr(codec, f"_{name}")
    transform._chain.__class__ = TimedChain
    return transform._chain


def main(
    model: Annotated[Path, typer.Option(help="A .licq file whose widths depend on the image.")],
    image: Annotated[Path, typer.Option(help="What is encoded and decoded.")],
    repeats: int = 20,
    threads: int = 2,
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON result.")] = Path("bench-output"),
) -> None:
    """Print the shares, and store them."""
    output.mkdir(parents=True, exist_ok=True)
    codec, rgb = licquant.load(model, threads=threads), read_image(image)
    found = shares(codec, rgb, repeats)
    for what, numbers in found.items():
        Console().print(
            f"{what}: {numbers['ms']:.1f} ms, of it the selector {numbers['selector_ms']:.2f} ms: "
            f"{100 * numbers['share']:.2f} % more",
            highlight=False,
        )
    record = {"schema": "licquant-selector/1", "image": image.name, "repeats": repeats, "shares": found}
    report.write_json(output / "selector.json", {**record, "provenance": provenance.collect(threads=threads)})


if __name__ == "__main__":
    typer.run(main)
