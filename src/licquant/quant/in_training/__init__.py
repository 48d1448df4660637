"""Quantization-aware finetuning.

Read ``quantizers`` (DPA, LSQ, PAMS), ``objective``, ``finetune_settings``, ``finetune``.
"""
