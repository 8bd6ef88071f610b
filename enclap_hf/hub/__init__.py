"""The Hugging Face Hub: repositories written and uploaded, model cards, and the Auto classes' knowledge of EnCLAP."""
