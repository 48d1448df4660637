"""From the quantized graph to the integer program and its coding tables."""

from licquant.lower.program import lower_model
from licquant.lower.tables import hyperprior_tables

__all__ = ["hyperprior_tables", "lower_model"]
