"""The command line: ``app`` declares every command, ``options`` what they share, and one file does each command's work.

Read ``app``, then ``coding`` (encode, decode), ``toolkit`` (quantize, evaluate, …), ``finetune``, ``train``.
"""
