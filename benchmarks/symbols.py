"""What must be the same everywhere, as short as it can be compared. Never imports torch."""

import hashlib

import numpy as np

from benchmarks.latent_reference import coded_parameters, gaussian_parameters
from licquant.codec.codec import Codec, Latents
from licquant.codec.latents.hyperprior import GaussianCoder
from licquant.program import reference


def digest(latents: Latents) -> str:
    """SHA-256 of the symbols."""
    symbols = (np.ascontiguousarray(v, dtype="<i4").tobytes() for v in (latents.y, latents.z))
    return hashlib.sha256(b"".join(symbols)).hexdigest()


def reference_agrees(codec: Codec, latents: Latents) -> bool:
    """Whether every part of the exact zone, run whole in the slow reference, gives the σ and μ that decoding used."""
    if not isinstance(codec.coder, GaussianCoder):
        return True
    z_hat = codec.coder.hyper.restore(latents.z)
    slow = gaussian_parameters(codec.artifact.family, codec.artifact.program, latents.y, z_hat, reference.run)
    fast = coded_parameters(codec.coder, latents.y, latents.z)
    return all(np.array_equal(a, b) for a, b in zip(slow, fast, strict=True))
