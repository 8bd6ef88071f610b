"""What a captioner can be rewarded for: CIDEr-D against the references, CLAP's cosine with the recording, a mixture."""

from collections.abc import Callable, Mapping, Sequence

import torch

from ..metrics.cider import SCALE, CiderD
from ..metrics.ptb_tokenizer import tokenize_ptb
from ..model.clap_text import compare_with_captions

REWARDS = ("cider_d", "clap")


def read_reward(reward: str | Mapping[str, float]) -> dict[str, float]:
    """The parts of a reward with their weights, which add up to 1.

    Args:
        reward: a name, names with weights such as "cider_d=0.8,clap=0.2", or a dict.
    Raises:
        ValueError: an unknown name, a weight that is no number of at least 0, or none above 0.
    """
    weights = reward
    if isinstance(reward, str):
        parts = [part.partition("=") for part in reward.split(",")]
        weights = {name.strip(): weight if sign else 1.0 for name, sign, weight in parts}
    try:
        weights = {name: float(weight) for name, weight in weights.items()}
    except (AttributeError, TypeError, ValueError):
        weights = {}
    if not set(weights) <= set(REWARDS) or not weights or not all(0 <= value < 1e6 for value in weights.values()):
        raise ValueError(
            f"Got `reward`={reward!r}; expected {' or '.join(REWARDS)}, or both with weights of at least 0, such as "
            "cider_d=0.8,clap=0.2."
        )
    total = sum(weights.values())
    if total <= 0:
        raise ValueError(f"Got `reward`={reward!r}, without a weight above 0; give a part of it one.")
    return {name: weight / total for name, weight in weights.items() if weight > 0}


class CaptionReward:
    """A reward of captions, from about 0 to 1.

    Args:
        weights: from [`read_reward`].
        references: of each training clip, whose document frequencies CIDEr-D takes.
        clap_text: the text tower of the captioner's CLAP, where "clap" is among the weights.
    Raises:
        ValueError: there are no references, or no text tower, that the reward needs.
    """

    def __init__(self, weights: Mapping[str, float], references: Sequence[Sequence[str]] | None, clap_text=None):
        if "cider_d" in weights and not references:
            raise ValueError("Got the reward cider_d without references; expected those of each training clip.")
        if "clap" in weights and clap_text is None:
            raise ValueError(
                "Got the reward clap, and the processor has no text tower of its CLAP (`clap_text`); use one that has."
            )
        self.weights, self.clap_text = dict(weights), clap_text
        self._cider = CiderD([tokenize_ptb(clip) for clip in references]) if "cider_d" in weights else None

    def __call__(
        self,
        captions: Sequence[Sequence[str]],
        references: Sequence[Sequence[str]] | None,
        clap_embedding: torch.Tensor | None,
    ) -> torch.Tensor:
        """Rewards float32 (B, n) of n captions of each clip.

        Args:
            captions: of each clip n.
            references: of each clip.
            clap_embedding: (B, C), each row of length 1.
        Raises:
            ValueError: the batch lacks what the reward needs.
        """
        scorers: dict[str, Callable] = {"cider_d": self._score_by_cider, "clap": self._score_by_clap}
        given = {"cider_d": references, "clap": clap_embedding}
        total = torch.zeros(len(captions), len(captions[0]))
        for name, weight in self.weights.items():
            if given[name] is None:
                what = "`references`" if name == "cider_d" else "`clap_embedding`"
                raise ValueError(f"Got clips without {what}, which the reward {name} needs; give each clip its own.")
            total += weight * torch.tensor(scorers[name](captions, given[name]))
        return total

    def _score_by_cider(self, captions, references) -> list[list[float]]:
        rows = []
        for texts, clip in zip(captions, references, strict=True):
            tokenised = tokenize_ptb(clip)
            rows.append([self._cider.score(text, tokenised) / SCALE for text in tokenize_ptb(texts)])
        return rows

    def _score_by_clap(self, captions, clap_embedding) -> list[list[float]]:
        return compare_with_captions(self.clap_text, clap_embedding, captions)
