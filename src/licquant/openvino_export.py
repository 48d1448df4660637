"""An artifact's transforms as OpenVINO IR, for programs that have OpenVINO and nothing of licquant.

    analysis (g_a)   hyper_analysis (h_a)   synthesis (g_s)          NAME.xml, NAME.bin
    parts.json       how their inputs and outputs are laid out       README.md

They are the models that the fast engine compiles on this machine, so they give its pixels. What an encoder and a
decoder must agree on is not among them: OpenVINO does not compute it exactly, ``onnx_export`` has it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import openvino as ov

from licquant.codec.codec import strides_of
from licquant.codec.files.artifact import Artifact, artifact_id, read_artifact_bytes
from licquant.codec.latents.hyperprior import fraction_bits
from licquant.errors import ArtifactError, ExportError
from licquant.images import check_new_folder, write_folder
from licquant.program import openvino_graph
from licquant.program.arithmetic import FIXED_POINT_BITS
from licquant.program.grid import Grid
from licquant.program.openvino_engine import OpenVinoEngine, description

FORMAT = 1
PARTS = {"analysis": "g_a", "hyper_analysis": "h_a", "synthesis": "g_s"}

_README = """\
# {family}, model {model}, as OpenVINO IR

Written by licquant; licence of the weights: {licence}. Written on {cpu},
OpenVINO {openvino}, for kernels that compute as that machine's do: on another, pixels may differ by a few units.

`parts.json` says for each model how its input and output are laid out: their order of axes, the type of their
elements, `bits` of the integers that they hold and, for those of 32 bits, `fraction_bits`. Height and width are
dynamic; an image is padded to multiples of `stride`, its last row and column repeated. Integers in float32 are to be
rounded: floor(v + 1/2).

`analysis` makes y of the image, `hyper_analysis` z of y, `synthesis` the image of ŷ. What lies between, the symbols
and their tables, is computed exactly, which OpenVINO does not: `licquant export --onnx` and docs/formats.md have it.
"""


def export(model: Path, folder: Path) -> dict[str, int]:
    """Write an artifact file as IR into a new folder. Returns each file's name and size in bytes.

    Raises ``ArtifactError`` for a file that is no artifact, ``ExportError`` for one whose widths depend on the image,
    and for a folder that is there with something in it, or cannot be written; then nothing has been written.
    """
    check_new_folder(folder)
    data = read_artifact_bytes(model)
    try:
        artifact = Artifact.from_bytes(data)
        if artifact.dynamic:
            raise ExportError("its widths depend on the image, which OpenVINO IR has no form for")
        files = _exported(artifact, artifact_id(data).hex())
    except (ArtifactError, ExportError) as error:
        raise type(error)(f"{model}: {error}") from error
    write_folder(folder, files)
    return {name: len(content) for name, content in files.items()}


def _exported(artifact: Artifact, identity: str) -> dict[str, bytes]:
    """File name → content."""
    parts = {name: artifact.program[part] for name, part in PARTS.items() if part in artifact.program}
    record: dict[str, Any] = {
        "format": FORMAT,
        "family": artifact.family,
        "model": identity,
        "licence": artifact.licence,
        "stride": strides_of(artifact.program)[1],
        **description(),
        "models": {
            name: {"input": _laid_out(part.input_grid), "output": _laid_out(part.output_grid)}
            for name, part in parts.items()
        },
    }
    files = {}
    with tempfile.TemporaryDirectory() as home:
        for name, part in parts.items():
            ov.save_model(OpenVinoEngine(part).model(), str(Path(home) / f"{name}.xml"), compress_to_fp16=False)
        files = {path.name: path.read_bytes() for path in sorted(Path(home).iterdir())}
    files["parts.json"] = json.dumps(record, indent=1, ensure_ascii=False).encode()
    files["README.md"] = _README.format(**record).encode()
    return files


def _laid_out(grid: Grid) -> dict[str, Any]:
    """How the engine's models hold the stored integers of a grid."""
    found = {
        "axes": "NHWC" if openvino_graph.interleaved(grid) else "NCHW",
        "type": "uint8" if openvino_graph.in_bytes(grid) else "float32",
        "channels": grid.channels,
        "bits": grid.bits,
    }
    return {**found, "fraction_bits": fraction_bits(grid)} if grid.bits == FIXED_POINT_BITS else found
