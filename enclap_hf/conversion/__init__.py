"""The published checkpoints, into this package's format and back: start at `convert_published.py`."""
