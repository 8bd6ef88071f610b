"""A Space that captions sounds, with the Hub repository that ENCLAP_MODEL names, else with the package's own model."""

import os

from enclap_hf.demo.app import launch_demo

launch_demo(os.environ.get("ENCLAP_MODEL"))
