"""Post-training quantization.

Read ``fit`` (which of the two), ``reconstruct``, ``rdo_ptq``.
"""
