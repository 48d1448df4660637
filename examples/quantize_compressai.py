"""A CompressAI model as an 8-bit codec:  python quantize_compressai.py model.pt photos/"""

import sys
from pathlib import Path

import licquant
from licquant.images import calibration_files, read_calibration
from licquant.models.load import load_model
from licquant.pipeline import Settings, quantize

model = load_model(None, sys.argv[1])  # whichever of CompressAI's the weights show
images = read_calibration(calibration_files(Path(sys.argv[2])), strict=False).images
result = quantize(model, images, settings=Settings(reconstruction_steps=20, lmbda=0.013))  # better: 250 steps
result.artifact.save("model.licq")

codec = licquant.load("model.licq")  # from here on without PyTorch
data = codec.encode(images[0])
print(f"{len(data)} bytes for an image of {codec.decode(data).shape}")
