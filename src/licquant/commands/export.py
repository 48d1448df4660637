"""``licquant export``: an artifact for other runtimes."""

from __future__ import annotations

from pathlib import Path

from licquant.commands.base import Report
from licquant.errors import LicquantError
from licquant.terminal import on_one_line, say


def run(model: Path, onnx: Path | None, openvino: Path | None) -> Report:
    """Into a new folder: ONNX models, or OpenVINO IR."""
    if onnx is not None and openvino is None:
        from licquant.onnx_export.folder import export  # here, as only this needs the library onnx

        return _told(onnx, export(model, onnx))
    if openvino is not None and onnx is None:
        from licquant.openvino_export import export as export_openvino

        return _told(openvino, export_openvino(model, openvino))
    raise LicquantError("give one of --onnx FOLDER and --openvino FOLDER")


def _told(folder: Path, sizes: dict[str, int]) -> Report:
    record = {"output": str(folder), "files": sizes, "bytes": sum(sizes.values())}
    line = f"{on_one_line(folder)}: {', '.join(sizes)}; {record['bytes']:,} bytes"
    return Report(record, lambda: say(line))
