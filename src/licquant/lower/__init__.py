"""From the quantized graph to the integer program and its coding tables."""

from licquant.lower.program import lower_model
from licquant.lower.tables import latent_tables

__all__ = ["latent_tables", "lower_model"]
