"""Artifacts as standard ONNX models, for runtimes that licquant does not have: analysis, hyper, contexts, synthesis.

Needs the library onnx, and nothing of the training stack.
"""
