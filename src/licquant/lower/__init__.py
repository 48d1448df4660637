"""From the quantized graph to the integer program, its coding tables and the artifact.

Read in this order: ``program`` (every operation), ``artifact`` (that and the tables of the entropy coder).
"""

from licquant.lower.artifact import latent_tables, lower_to_artifact
from licquant.lower.program import lower_model

__all__ = ["latent_tables", "lower_model", "lower_to_artifact"]
