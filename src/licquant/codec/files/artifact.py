"""``model.licq``: a quantized model in one file. Everything little-endian.

A ``container`` whose header names every tensor. Its SHA-256 names the artifact: the first 8 bytes of that stand in
every image coded with it. Version 4 is version 2 with what the widths that depend on the image need; an artifact of
fixed widths is written as version 2. (Version 3, never released, had other positions for the selectors to read.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from licquant.codec.files import container
from licquant.codec.files.blobs import BlobReader, BlobWriter, allowed_elements, get
from licquant.codec.files.dynamic import dynamic_from_json, dynamic_to_json
from licquant.codec.files.latent_tables import FAMILY_CONTENTS, LatentTables
from licquant.codec.files.plain_weights import plain_to_weights, weights_to_plain
from licquant.codec.files.program import program_from_json, program_to_json
from licquant.config import Plan
from licquant.errors import ArtifactError, PlanError
from licquant.images import write_result
from licquant.program.dynamic import DynamicPart
from licquant.program.grid import Grid
from licquant.program.part import Program
from licquant.ready import Ready

MAGIC = b"LICQ"
VERSION, DYNAMIC_VERSION = 2, 4
TRANSFORMS = ("g_a", "g_s")  # the parts of the free zone whose widths may depend on the image
_MAX_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Artifact:
    """A quantized model.

    family:     how its latent is coded, a key of ``FAMILY_CONTENTS``
    program:    parts g_a, g_s and those of the family
    tables:     the family's coding tables
    plan:       the widths it was made with; where they depend on the image, the widest
    provenance: checkpoint SHA-256, model name, λ, calibration images, command, versions: JSON values
    licence:    of the weights, as their owner states it
    dynamic:    g_a, g_s or both with all widths that may be chosen for an image; ``part`` of each is the program's
    """

    family: str
    program: Program
    tables: LatentTables
    plan: Plan
    provenance: Mapping[str, Any] = field(default_factory=dict)
    licence: str = "not stated"
    dynamic: Mapping[str, DynamicPart] = field(default_factory=dict)

    def __post_init__(self) -> None:
        contents = FAMILY_CONTENTS.get(self.family)
        if contents is None:
            raise ArtifactError(f"unknown family {self.family[:40]!r}: made by a newer licquant?")
        if not isinstance(self.tables, contents.tables):
            raise ArtifactError(f"its coding tables are not those of the family {self.family}")
        missing = [name for name in contents.parts if name not in self.program]
        if missing:
            raise ArtifactError(f"the program lacks the part {missing[0]}")
        pairs = (("g_a", "g_s"), ("g_a", "h_a"), ("h_a", "h_s"))
        present = [(a, b) for a, b in pairs if a in self.program and b in self.program]
        if any(self.program[a].output_grid.channels != self.program[b].input_grid.channels for a, b in present):
            raise ArtifactError("the program's parts do not fit one another")
        pixels = self.program["g_a"].input_grid, self.program["g_s"].output_grid
        if not all(grid.same(Grid.pixels()) for grid in pixels):
            raise ArtifactError("the program does not read or write pixels: three channels of 8 bits")
        if any(name not in TRANSFORMS or part.part is not self.program[name] for name, part in self.dynamic.items()):
            raise ArtifactError("only g_a and g_s of the program may have widths that depend on the image")

    def to_bytes(self) -> bytes:
        """The file's content; the same artifact gives the same bytes.

        Raises ``ArtifactError`` if it could not be read again: if its weights take next to nothing.
        """
        writer = BlobWriter()
        header: dict[str, Any] = {
            "family": self.family,
            "licence": self.licence,
            "provenance": dict(self.provenance),
            "plan": self.plan.to_json(),
            "program": program_to_json(self.program, writer),
            "tables": self.tables.to_json(writer),
        }
        if self.dynamic:
            header["dynamic"] = dynamic_to_json(self.dynamic, header["program"], writer)
        data = container.pack(MAGIC, DYNAMIC_VERSION if self.dynamic else VERSION, header, writer.blobs)
        if writer.elements > allowed_elements(len(data)):
            raise ArtifactError(f"{writer.elements} numbers in {len(data)} bytes: use more bits for the weights")
        return data

    @classmethod
    def from_bytes(cls, data: bytes, ready: Ready = Ready()) -> Artifact:  # noqa: B008 (is frozen)
        """Raises ``ArtifactError`` for anything but an undamaged artifact of a known version.

        ready: where its weights may be found unpacked, or else are kept so
        """
        header, blobs = _open(data)
        found = ready.read()
        reader = BlobReader(blobs, len(data), None if found is None else plain_to_weights(found))
        try:
            plan = Plan.from_json(get(header, "plan", dict))
        except PlanError as error:
            raise ArtifactError(f"its plan cannot be read: {error}") from error
        family = get(header, "family", str)
        if family not in FAMILY_CONTENTS:
            raise ArtifactError(f"unknown family {family[:40]!r}: made by a newer licquant?")
        program = program_from_json(header.get("program"), reader)
        tables = FAMILY_CONTENTS[family].tables.from_json(get(header, "tables", dict), reader)
        dynamic = dynamic_from_json(header["dynamic"], program, reader) if "dynamic" in header else {}
        provenance, licence = get(header, "provenance", dict), get(header, "licence", str)
        artifact = cls(family, program, tables, plan, provenance, licence, dynamic)
        if found is None and ready.folder is not None:
            ready.write(weights_to_plain(reader.unpacked))
        return artifact

    def save(self, path: str | Path) -> int:
        """Write the file, whole or not at all; returns its size in bytes."""
        data = self.to_bytes()
        write_result(path, data)
        return len(data)


def artifact_id(data: bytes) -> bytes:
    """The 8 bytes that name an artifact's content."""
    return data[-container.HASH_BYTES :][:8]


def whole_id(data: bytes) -> str:
    """The SHA-256 of an artifact's content in hex, as its file ends with."""
    return data[-container.HASH_BYTES :].hex()


def read_artifact_bytes(path: str | Path) -> bytes:
    """The content of an artifact file; ``ArtifactError`` if it cannot be read or is absurdly large."""
    try:
        if Path(path).stat().st_size > _MAX_BYTES:
            raise ArtifactError(f"{path}: larger than {_MAX_BYTES >> 20} MiB: not a licquant model")
        return Path(path).read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror or error}") from error


def blob_sizes(data: bytes) -> tuple[dict[str, Any], list[int]]:
    """(header, length of every blob) of an artifact's content: for reports of what takes the space."""
    header, blobs = _open(data)
    return header, [len(blob) for blob in blobs]


def _open(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    version, header, blobs = container.unpack(MAGIC, (VERSION, DYNAMIC_VERSION), data, "a licquant model")
    if ("dynamic" in header) != (version == DYNAMIC_VERSION):
        raise ArtifactError(f"its header is not one of version {version}")
    return header, blobs
