"""The folder of an export: models, tables, and how they are joined. Whole, or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from licquant.codec.files.artifact import Artifact, artifact_id, read_artifact_bytes
from licquant.errors import ArtifactError, ExportError
from licquant.onnx_export.graph import OPSET
from licquant.onnx_export.models import Models
from licquant.onnx_export.readme import readme
from licquant.onnx_export.tables import tables_record


def export(model: Path, folder: Path) -> dict[str, int]:
    """Write an artifact file as ONNX models into a new folder. Returns each file's name and size in bytes.

    Raises ``ArtifactError`` for a file that is no artifact, ``ExportError`` for one that has no form in ONNX, and for a
    folder that is there with something in it, or cannot be written; then nothing has been written.
    """
    check_folder(folder)
    data = read_artifact_bytes(model)
    try:
        files = exported(Artifact.from_bytes(data), artifact_id(data).hex())
    except (ArtifactError, ExportError) as error:
        raise type(error)(f"{model}: {error}") from error
    _write(folder, files)
    return {name: len(content) for name, content in files.items()}


def exported(artifact: Artifact, identity: str) -> dict[str, bytes]:
    """File name → content; identity: of the artifact, in hexadecimal digits. Raises as ``export``."""
    properties = {"licquant.model": identity, "licquant.family": artifact.family, "licquant.licence": artifact.licence}
    models = Models(artifact, properties)
    files = {f"{name}.onnx": model.SerializeToString() for name, model in models.all().items()}
    about = {"family": artifact.family, "model": identity, "licence": artifact.licence}
    record = tables_record(about, models.strides, artifact.program["g_s"], models.coder)
    files["tables.json"] = json.dumps(record, separators=(",", ":")).encode()
    files["README.md"] = readme(record, sorted(files), OPSET).encode()
    return files


def check_folder(folder: Path) -> None:
    """``ExportError`` unless the folder can be made, or is there and empty: asked before the work."""
    try:
        if folder.is_dir() and not any(folder.iterdir()):
            return
        if folder.exists() or folder.is_symlink():
            raise ExportError(f"{folder}: is there already, and not empty: delete it, or choose another")
        if not folder.absolute().parent.is_dir():
            raise ExportError(f"{folder.parent}: there is no such folder")
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """All files aside, and then the folder renamed."""
    aside = folder.absolute().parent / f".licquant-{secrets.token_hex(8)}.tmp"
    try:
        aside.mkdir()
        for name, content in files.items():
            (aside / name).write_bytes(content)
        os.replace(aside, folder)
    except (OSError, ValueError) as error:  # ValueError: a name that cannot be one of a file
        raise ExportError(f"{folder}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # after the rename it is gone already
