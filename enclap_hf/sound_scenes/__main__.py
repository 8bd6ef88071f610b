"""`python -m enclap_hf.sound_scenes` writes scenes."""

import sys

from .scene_files import main

sys.exit(main())
