"""Quantization-aware finetuning: learned quantizers, the loss, the steps."""
