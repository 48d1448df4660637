"""Every byte layout: model.licq, image.lic and what they hold; nothing else. docs/formats.md specifies them.

Read in this order: ``bitstream`` (image.lic), ``artifact`` (model.licq), ``blobs`` (tensors in it), ``weights`` (packed
weights), ``program``, ``latent_tables`` and ``dynamic`` (the header's records), ``contents`` (what an artifact holds,
layer by layer).
"""
