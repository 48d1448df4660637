"""Post-training quantization: reconstruction and RDO-PTQ."""
