"""Widths layer by layer, so that a model fits a number of bytes:  python mixed_precision.py model.pt photos/ 2000000"""

import sys
from pathlib import Path

from licquant.config import Budget
from licquant.images import calibration_files, read_calibration
from licquant.models.load import load_model
from licquant.pipeline import Settings, quantize

images = read_calibration(calibration_files(Path(sys.argv[2])), strict=False).images
result = quantize(
    load_model(None, sys.argv[1]),
    images,
    method="optimal",
    budget=Budget("bytes", float(sys.argv[3])),
    settings=Settings(lmbda=0.013),
)
size = result.artifact.save("mixed.licq")
for name, bits in result.plan.layers.items():
    print(f"{name:24} weights {bits.weight} bits, activations {bits.activation} bits")
print(f"{size} bytes, of {sys.argv[3]} allowed")
