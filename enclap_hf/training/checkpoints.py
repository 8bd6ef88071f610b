"""Which of a run's checkpoints is whole."""

import glob
import json
import logging
import os

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

logger = logging.getLogger(__name__)


def find_last_complete_checkpoint(output_dir: str, num_processes: int = 1) -> str | None:
    """Find the newest checkpoint that a kill did not leave half written.

    Args:
        output_dir: of the run.
        num_processes: processes that will go on.
    Returns:
        its folder, or None.
    """
    folders = glob.glob(os.path.join(glob.escape(output_dir), f"{PREFIX_CHECKPOINT_DIR}-*"))
    steps = {int(name): folder for folder in folders if (name := folder.rsplit("-", 1)[1]).isdecimal()}
    for step in sorted(steps, reverse=True):
        if is_complete_checkpoint(steps[step], num_processes):
            return steps[step]
        logger.warning("%s is incomplete, as a killed run leaves it; going on from an older one.", steps[step])
    return None


def is_complete_checkpoint(folder: str, num_processes: int = 1) -> bool:
    """Whether a checkpoint has what Trainer writes last: its state, and the randomness of every process."""
    try:
        with open(os.path.join(folder, "trainer_state.json"), encoding="utf-8") as file:
            json.load(file)
    except (OSError, ValueError):
        return False
    if os.path.exists(os.path.join(folder, "rng_state.pth")):
        return True
    present = len(glob.glob(os.path.join(glob.escape(folder), "rng_state_*.pth")))
    return present > 0 and (num_processes == 1 or present >= num_processes)
