"""Synthetic sound scenes with known events: no recording is needed, and the truth is exact.

`scenes.py` makes a scene from a seed, out of what `scene_plan.py` draws, `sound_kinds.py` lists and `sounds_of_*.py`
synthesise; `scene_captions.py` words it and reads captions back; `scene_files.py` writes data sets:

    enclap scenes --output scenes --num-scenes 1000
"""

from .example_scenes import EXAMPLE_SCENES, make_example_scene
from .scene_captions import RELATIONS, ParsedCaption, parse_caption
from .scene_files import write_scenes
from .scenes import Event, Scene, degrade_audio, make_scene
from .sound_kinds import SOUND_KINDS, SoundKind
from .sound_synthesis import SAMPLING_RATE

__all__ = [
    "EXAMPLE_SCENES",
    "RELATIONS",
    "SAMPLING_RATE",
    "SOUND_KINDS",
    "Event",
    "ParsedCaption",
    "Scene",
    "SoundKind",
    "degrade_audio",
    "make_example_scene",
    "make_scene",
    "parse_caption",
    "write_scenes",
]
