"""A quantized model in CompressAI's own evaluation:  python evaluate_with_compressai.py model.licq pictures/"""

import sys
from pathlib import Path

from compressai.utils.eval_model.__main__ import collect_images, eval_model

import licquant.torch

model = licquant.torch.load(sys.argv[1])
folder = Path(sys.argv[2])
found = eval_model(model, folder, folder, collect_images(folder), architecture="licquant", half=False, per_image=False)
print(", ".join(f"{name} {value:.4f}" for name, value in found.items()))
