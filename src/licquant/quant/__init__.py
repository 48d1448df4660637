"""Quantization: grids and ranges, the simulated integer network, calibration and reconstruction."""
