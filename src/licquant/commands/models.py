"""``licquant models``: the supported models and how much work they are."""

from __future__ import annotations

from dataclasses import asdict

from rich.box import SIMPLE_HEAD
from rich.table import Table

from licquant.commands.base import Report
from licquant.models.describe import Description, descriptions
from licquant.terminal import show_table


def run() -> Report:
    """Builds every model once, with random weights: only shapes matter."""
    found = list(descriptions())
    return Report({"models": [asdict(one) for one in found]}, lambda: show_table(_table(found)))


def _table(found: list[Description]) -> Table:
    """Family after family, narrow enough for 80 columns."""
    table = Table(
        title="Models, by family: thousands of MACs per pixel of the image",
        caption="All commands work with all of them. exact: of the MACs of either side, those in exact integers.",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in ("model", "N/M", "params", "encode", "decode", "exact"):
        table.add_column(column, justify="left" if column in ("model", "N/M") else "right", no_wrap=True)
    for family in dict.fromkeys(one.family for one in found):
        table.add_row(family, style="bold")
        for one in (one for one in found if one.family == family):
            widths = "/".join(map(str, one.widths.values()))
            macs = (f"{count / 1e3:,.1f}" for count in (one.encode_macs, one.decode_macs, one.exact_macs))
            table.add_row(f"  {one.name}", widths, f"{one.parameters / 1e6:.1f}M", *macs)
    return table
