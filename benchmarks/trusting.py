"""What exact INT8 costs where this machine's kernels saturate: encode and decode beside blindly trusted kernels.

    python -m benchmarks.trusting --images DIR [--model A.licq] -o DIR

The trusting codec is told that the self-test found every kernel exact. Where that is true both are the same; where it
is not, its pictures are wrong, and only its time says something. Both run in turn (A B, B A, ...).
"""

import time
from pathlib import Path
from statistics import median
from typing import Annotated
from unittest.mock import patch

import typer
from rich.console import Console
from rich.table import Table

import licquant
from benchmarks.speed import embedded
from licquant.codec.codec import Codec
from licquant.evaluate import provenance
from licquant.images import RGB, list_images, read_image
from licquant.program import self_test
from licquant.reports import report

EXACT, TRUSTING = "exact", "trusting"


def all_exact(machine: self_test.Machine, kinds: object = self_test.KINDS) -> dict[str, self_test.Sums]:
    """What a self-test would say of kernels that are right."""
    return dict.fromkeys(self_test.KINDS, self_test.Sums.EXACT)


def load_trusting(model: Path, threads: int, rgb: RGB) -> Codec:
    """A codec whose parts are built as if all INT8 kernels were exact."""
    with patch.object(self_test.Machine, "sums", all_exact):
        codec = licquant.load(model, threads=threads)
        codec.decode(codec.encode(rgb))  # parts are built when they are first used
    return codec


def seconds(codec: Codec, rgb: RGB) -> dict[str, float]:
    begun = time.perf_counter()
    data = codec.encode(rgb)
    coded = time.perf_counter()
    codec.decode(data)
    return {"encode": coded - begun, "decode": time.perf_counter() - coded}


def main(
    images: Annotated[Path, typer.Option(help="A folder of test images.")],
    output: Annotated[Path, typer.Option("-o", help="Folder for trusting.json.")],
    model: Annotated[Path | None, typer.Option(help="Artifact (.licq); default: an embedded one.")] = None,
    threads: int = 2,
    count: Annotated[int, typer.Option(help="Of the images.")] = 3,
    rounds: int = 6,
) -> None:
    """Print medians and the ratios of pairs."""
    artifact, pictures = model or embedded("*-lambda0.0130.licq"), [read_image(p) for p in list_images(images)[:count]]
    codecs = {TRUSTING: load_trusting(artifact, threads, pictures[0]), EXACT: licquant.load(artifact, threads=threads)}
    codecs[EXACT].decode(codecs[EXACT].encode(pictures[0]))
    pairs = [
        {name: seconds(codecs[name], rgb) for name in sorted(codecs, reverse=number % 2 == 0)}
        for number in range(rounds)
        for rgb in pictures
    ]
    table = Table(title=f"{len(pictures)} images, {threads} threads, medians", title_justify="left")
    for heading in ("operation", EXACT, TRUSTING, "ratio", "from", "to"):
        table.add_column(heading, justify="left" if heading == "operation" else "right")
    for operation in ("encode", "decode"):
        ratios = [pair[EXACT][operation] / pair[TRUSTING][operation] for pair in pairs]
        ms = [f"{1000 * median(pair[name][operation] for pair in pairs):.0f} ms" for name in (EXACT, TRUSTING)]
        table.add_row(operation, *ms, *(f"{ratio:.2f}" for ratio in (median(ratios), min(ratios), max(ratios))))
    Console().print(table)
    output.mkdir(parents=True, exist_ok=True)
    record = {"schema": "licquant-trusting/1", "pairs": pairs}
    report.write_json(output / "trusting.json", {**record, "provenance": provenance.collect(threads=threads)})


if __name__ == "__main__":
    typer.run(main)
