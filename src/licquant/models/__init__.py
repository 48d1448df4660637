"""CompressAI models, and models like them: load, and trace to a graph whose nodes are the layers."""

from licquant.models.load import load_model

__all__ = ["load_model"]
