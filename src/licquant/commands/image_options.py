"""Options for what a picture has beside RGB of 8 bits: declared once, for all commands."""

from __future__ import annotations

from typing import Annotated

import typer

from licquant.commands.options import count
from licquant.errors import LicquantError
from licquant.images import Reading, parse_colour

Srgb = Annotated[
    bool, typer.Option("--srgb", help="Convert colours to sRGB by the colour profile; else the profile is kept.")
]
Metadata = Annotated[
    bool,
    typer.Option(
        "--metadata", help="Keep EXIF, XMP and density. Otherwise not: they take bytes, and may tell who and where."
    ),
]
Background = Annotated[
    str | None,
    typer.Option("--background", help="Flatten transparency onto this colour: white, #ffcc00, … Else it is kept."),
]
NoAlpha = Annotated[bool, typer.Option("--no-alpha", help="Refuse pictures with transparency.")]
Depth = Annotated[
    str | None, typer.Option("--depth", help="8: take samples of 9 to 16 bits by their upper 8. Else they are refused.")
]
Frame = Annotated[
    int | None, count("--frame", "Which frame of several, from 0. Else several frames are refused.", low=0)
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse unusable calibration images; else skipped.")]


def reading_of(
    srgb: bool, metadata: bool, background: str | None, no_alpha: bool, depth: str | None, frame: int | None
) -> Reading:
    """The options of a command that reads pictures; ``LicquantError`` for ones that make no sense."""
    if depth not in (None, "8"):
        raise LicquantError(f"--depth {depth[:40]}: pictures are coded in 8 bits per sample, so 8 is the only choice")
    if no_alpha and background is not None:
        raise LicquantError("--no-alpha and --background: give one of them")
    colour = None if background is None else parse_colour(background)
    return Reading(srgb, metadata, not no_alpha, colour, depth is not None, frame)
