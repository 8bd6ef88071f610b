"""`python -m enclap_hf.sound_scenes` writes scenes."""

from .scene_files import main

main()
