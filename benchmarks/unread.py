"""What artifacts lose with the channels that nothing reads (``program/unread.py``): bytes, and layers' widths.

The function stays the same for every input; of files that hold such channels they are left out when they are loaded.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

import licquant
from licquant.codec.files.artifact import Artifact
from licquant.program.ops import Convolution, TransposedConvolution
from licquant.program.part import Part, Program
from licquant.program.unread import without_unread
from licquant.reports.report import write_json


def widths(part: Part) -> list[int]:
    """Output channels, layer after layer."""
    return [op.bias.size for op in part.operations if isinstance(op, Convolution | TransposedConvolution)]


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for unread.json")],
    models: Annotated[list[Path] | None, typer.Option(help="artifacts; default: the embedded ones")] = None,
) -> None:
    """Every model, before and after. What was made since the first ones were embedded has no such channels left."""
    rows: dict[str, Any] = {}
    for path in models or sorted(Path(licquant.__file__).parent.glob("assets/*.licq")):
        data = path.read_bytes()
        artifact = Artifact.from_bytes(data)
        less = Program({name: without_unread(part) for name, part in artifact.program.items()})
        size = len(replace(artifact, program=less).to_bytes())
        changed = {name: widths(part) for name, part in less.items() if widths(part) != widths(artifact.program[name])}
        rows[path.stem] = {"bytes": len(data), "without": size, "widths": changed}
        print(f"{path.stem}: {len(data):,} bytes, {size:,} without ({100 * (size / len(data) - 1):+.1f} %), {changed}")
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "unread.json", rows)


if __name__ == "__main__":
    typer.run(main)
