"""Exports captioners to ONNX and quantises what was exported; `model/onnx_captioner.py` runs it."""
