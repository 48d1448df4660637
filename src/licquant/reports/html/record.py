"""What a report is made from: the evaluation's JSON, and beside it the models, samples and the command.

``schema`` (name and version; fields are only ever added), ``evaluation`` (``reports/report.py``), ``command``,
``models`` (one for each artifact: where its bytes are), ``samples`` (``samples.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from licquant.evaluate.artifacts import Candidate, Group
from licquant.reports.html.samples import Samples
from licquant.reports.report import finite
from licquant.reports.sensitivity_table import table_beside

SCHEMA = "licquant-report/1"


def report_record(
    evaluation: dict[str, Any], groups: Sequence[Group], samples: Samples, command: str
) -> dict[str, Any]:
    """Everything that a report tells, JSON-ready. command: that repeats the evaluation."""
    models = [_model(group.label, member, samples) for group in groups for member in group.members]
    record = {
        "schema": SCHEMA,
        "command": command,
        "evaluation": evaluation,
        "models": models,
        "samples": samples.record,
    }
    found: dict[str, Any] = finite(record)
    return found


def _model(label: str, member: Candidate, samples: Samples) -> dict[str, Any]:
    command = member.provenance.get("command")
    return {
        "label": label,
        "lmbda": member.lmbda,
        "file": member.path.name,
        "sha256": member.sha256,
        "command": None if command is None else str(command),
        "bytes": member.path.stat().st_size,
        "layers": [asdict(layer) for layer in member.layers],
        "widths_depend_on_the_image": bool(member.stages),
        "coded": samples.coded(label, member.lmbda),
        "sensitivity": table_beside(member.path, member.sha256),
    }
