"""Training on anyone's recordings: caption tables, prepared features, batches, the trainer and its report.

`examples/run_captioning.py` puts them together.
"""
