"""``licquant export``: an artifact for other runtimes."""

from __future__ import annotations

from pathlib import Path

from licquant.commands.base import Report
from licquant.terminal import on_one_line, say


def onnx(model: Path, folder: Path) -> Report:
    """As ONNX models in a new folder."""
    from licquant.onnx_export.folder import export  # here, as only this needs the library onnx

    sizes = export(model, folder)
    record = {"output": str(folder), "files": sizes, "bytes": sum(sizes.values())}
    line = f"{on_one_line(folder)}: {', '.join(sizes)}; {record['bytes']:,} bytes"
    return Report(record, lambda: say(line))
