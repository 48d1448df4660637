"""Widths that depend on the image (DynaQuant): stages in several widths that share weights, and what chooses."""
