"""Quantization-aware finetuning.

Read ``quantizers`` (DPA, LSQ, PAMS), ``finetune_settings``, ``finetune``.
"""
