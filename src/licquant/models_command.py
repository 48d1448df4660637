"""``licquant models``: the supported models and how much work they are."""

from __future__ import annotations

from dataclasses import asdict

from rich.table import Table

from licquant.commands import OUT, Report
from licquant.models.describe import Description, descriptions


def run() -> Report:
    """Builds every model once, with random weights: only shapes matter."""
    found = list(descriptions())
    return Report({"models": [asdict(one) for one in found]}, lambda: OUT.print(_table(found)))


def _table(found: list[Description]) -> Table:
    table = Table(title="Supported models (CompressAI's names); MACs per pixel of the image")
    for column in ("model", "family", "widths", "parameters", "encode", "decode", "of it exact"):
        table.add_column(column, justify="left" if column in ("model", "family", "widths") else "right")
    for one in found:
        widths = " ".join(f"{key}={value}" for key, value in one.widths.items())
        macs = (f"{count / 1e3:,.1f}k" for count in (one.encode_macs, one.decode_macs, one.exact_macs))
        table.add_row(one.name, one.family, widths, f"{one.parameters / 1e6:.1f}M", *macs)
    return table
