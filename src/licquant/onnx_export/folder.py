"""The folder of an export: models, tables, and how they are joined. Whole, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

from licquant.codec.files.artifact import Artifact, artifact_id, read_artifact_bytes
from licquant.errors import ArtifactError, ExportError
from licquant.images import check_new_folder, write_folder
from licquant.onnx_export.models import Models
from licquant.onnx_export.readme import readme
from licquant.onnx_export.tables import tables_record


def export(model: Path, folder: Path) -> dict[str, int]:
    """Write an artifact file as ONNX models into a new folder. Returns each file's name and size in bytes.

    Raises ``ArtifactError`` for a file that is no artifact, ``ExportError`` for one that has no form in ONNX, and for a
    folder that is there with something in it, or cannot be written; then nothing has been written.
    """
    check_new_folder(folder)
    data = read_artifact_bytes(model)
    try:
        files = exported(Artifact.from_bytes(data), artifact_id(data).hex())
    except (ArtifactError, ExportError) as error:
        raise type(error)(f"{model}: {error}") from error
    write_folder(folder, files)
    return {name: len(content) for name, content in files.items()}


def exported(artifact: Artifact, identity: str) -> dict[str, bytes]:
    """File name → content; identity: of the artifact, in hexadecimal digits. Raises as ``export``."""
    properties = {"licquant.model": identity, "licquant.family": artifact.family, "licquant.licence": artifact.licence}
    models = Models(artifact, properties)
    files = {f"{name}.onnx": model.SerializeToString() for name, model in models.all().items()}
    about = {"family": artifact.family, "model": identity, "licence": artifact.licence}
    record = tables_record(about, models.strides, artifact.program, models.coder)
    files["tables.json"] = json.dumps(record, separators=(",", ":")).encode()
    files["README.md"] = readme(record, sorted(files)).encode()
    return files | {f"qdq/{name}.onnx": model.SerializeToString() for name, model in models.quantized().items()}
