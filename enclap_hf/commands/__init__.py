"""What the sub-commands of `enclap` do; `enclap_hf/cli.py` puts them together."""
