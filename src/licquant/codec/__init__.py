"""The codec half of licquant: coding tables, coder, file formats; never imports torch."""
