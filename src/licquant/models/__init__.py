"""CompressAI models, and models like them: load, and trace to a graph whose nodes are the layers.

Read in this order: ``load``, ``trace`` and ``graph``, ``families`` (which parts make which family), ``geometry``,
``describe``.
"""

from licquant.models.load import load_model

__all__ = ["load_model"]
