"""What a caller may ask for in the way of candidates: how many captions of a recording to choose from, and how."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .reranking import read_mixture

CANDIDATE_KINDS = ("beam", "nucleus", "both")
# Of "both", the share of beams.
SHARE_OF_BEAMS = 1 / 3
# Arguments of a call that choose among several captions of a recording.
CHOICE_ARGUMENTS = ("num_candidates", "candidates", "rerank", "seed", "is_fluent")
# Those of them that each ask for it.
CHOICES = ("num_candidates", "candidates", "rerank")
# Arguments of `generate` that a search for candidates sets itself.
SET_BY_SEARCH = ("num_beams", "do_sample", "top_k")


@dataclass(frozen=True)
class CandidateSearch:
    """How candidates are made.

    Args:
        num_candidates: of each clip, before duplicates are removed.
        kind: "beam", "nucleus" or "both".
        seed: of the samples.
        top_p: share of the probability that the nucleus holds at least.
        temperature: divides the logits before that.
    Raises:
        ValueError: a value out of its range.
    """

    num_candidates: int = 30
    kind: str = "nucleus"
    seed: int = 0
    top_p: float = 0.9
    temperature: float = 0.7

    def __post_init__(self):
        if self.kind not in CANDIDATE_KINDS:
            raise ValueError(f"Got `candidates`={self.kind!r}; expected {', '.join(map(repr, CANDIDATE_KINDS))}.")
        for name, value, least in (("num_candidates", self.num_candidates, 2), ("seed", self.seed, 0)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"Got `{name}`={value!r}; expected a whole number of at least {least}.")
        if not 0 < self.top_p <= 1 or not self.temperature > 0:
            raise ValueError(
                f"Got `top_p`={self.top_p!r} and `temperature`={self.temperature!r}; expected a share above 0 and up "
                "to 1, and a number above 0."
            )

    @property
    def num_beams(self) -> int:
        """How many candidates come from a beam search."""
        shares = {"beam": 1.0, "nucleus": 0.0, "both": SHARE_OF_BEAMS}
        return max(round(shares[self.kind] * self.num_candidates), int(self.kind == "both"))

    @property
    def num_samples(self) -> int:
        """How many candidates are samples."""
        return self.num_candidates - self.num_beams


@dataclass(frozen=True)
class CaptionChoice:
    """How a caption is chosen.

    Args:
        search: how candidates are made.
        weights: of the scorers, see [`read_mixture`].
        num_captions: of each recording, best first.
        is_fluent: see [`rank_candidates`].
    """

    search: CandidateSearch
    weights: dict[str, float]
    num_captions: int = 1
    is_fluent: Callable[[list[str]], Sequence[bool]] | None = field(default=None, compare=False)


def read_choice(arguments: dict) -> tuple[CaptionChoice | None, dict]:
    """What a caller asks for in the way of candidates.

    Args:
        arguments: of a call of the pipeline, those of `generate` among them. `num_candidates`, `candidates` and `seed`
            are those of [`CandidateSearch`], as are `top_p` and `temperature`; `rerank` is that of [`read_mixture`],
            "consensus" where candidates are asked for alone; `is_fluent` that of [`rank_candidates`].
    Returns:
        the choice, None where none is asked for; and the arguments that are left for `generate`.
    Raises:
        ValueError: a value out of its range, or an argument that only a search without candidates has.
    """
    asked = {name: arguments.get(name) for name in CHOICE_ARGUMENTS}
    generate_kwargs = {name: value for name, value in arguments.items() if name not in CHOICE_ARGUMENTS}
    if all(asked[name] is None for name in CHOICES):
        if asked["is_fluent"] is not None:
            raise ValueError(
                "Got `is_fluent` without candidates to choose from; pass `num_candidates` or `rerank` with it, or "
                "leave it out."
            )
        return None, generate_kwargs if asked["seed"] is None else {**generate_kwargs, "seed": asked["seed"]}
    for name in SET_BY_SEARCH:
        if generate_kwargs.get(name) is not None:
            raise ValueError(
                f"Got `{name}` beside candidates, which are made in a way of their own; leave it out, and set "
                "`num_candidates`, `candidates`, `top_p` and `temperature`."
            )
    wanted = {"num_candidates": asked["num_candidates"], "kind": asked["candidates"], "seed": asked["seed"]}
    wanted |= {name: generate_kwargs.get(name) for name in ("top_p", "temperature")}
    search = CandidateSearch(**{name: value for name, value in wanted.items() if value is not None})
    number = generate_kwargs.get("num_return_sequences") or 1
    if number > search.num_candidates:
        raise ValueError(
            f"Got `num_return_sequences`={number} of `num_candidates`={search.num_candidates}; ask for as many "
            "candidates at least."
        )
    used = ("top_p", "temperature", "num_return_sequences")
    left = {name: value for name, value in generate_kwargs.items() if name not in used}
    weights = read_mixture("consensus" if asked["rerank"] is None else asked["rerank"])
    return CaptionChoice(search, weights, number, asked["is_fluent"]), left
