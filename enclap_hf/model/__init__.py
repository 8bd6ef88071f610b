"""All that travels to a Hub repository: the captioner, what it hears with, its processor, pipeline and handler.

Every file of this folder but this one is shipped, flat, beside the weights.
"""
