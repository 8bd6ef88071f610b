"""Write the recordings of `examples/sounds/`: synthesised scenes, in the formats and rates that people send.

python examples/make_example_sounds.py --output examples/sounds
"""

import argparse
from pathlib import Path

import soundfile
from scipy.signal import resample_poly

from enclap_hf.sound_scenes import SAMPLING_RATE, make_example_scene

# file name, sampling rate in Hz
SOUNDS = (
    ("dog_then_telephone.flac", 24_000),
    ("rain_and_piano.ogg", 48_000),
    ("knocking.mp3", 16_000),
    ("siren_over_engine.wav", 16_000),
    ("owl_then_thunder.opus", 48_000),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the example recordings.")
    parser.add_argument("--output", type=Path, default=Path("examples/sounds"), help="folder (default: %(default)s)")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    for name, sampling_rate in SOUNDS:
        scene = make_example_scene(Path(name).stem)
        soundfile.write(
            folder / name, resample_poly(scene.audio, sampling_rate, SAMPLING_RATE), sampling_rate, **file_kind(name)
        )
        print(f"{folder / name}: {scene.captions[0]}")


def file_kind(name: str) -> dict:
    """soundfile's format and subtype where the extension does not say them."""
    return {"format": "OGG", "subtype": "OPUS"} if name.endswith(".opus") else {}


if __name__ == "__main__":
    main()
