"""From the quantized graph to the integer program, its coding tables and the artifact.

Read in this order: ``program`` (every operation), ``tables`` (of the entropy coder), ``artifact`` (all of it together).
"""

from licquant.lower.artifact import lower_to_artifact
from licquant.lower.program import lower_model
from licquant.lower.tables import latent_tables

__all__ = ["latent_tables", "lower_model", "lower_to_artifact"]
