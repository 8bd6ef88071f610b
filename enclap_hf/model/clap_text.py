"""CLAP's text tower: captions to vectors in the space of the audio tower's, so that the two can be compared.

It stays in float32 and in evaluation mode, and is loaded with the first caption. Its own tokenizer lies beside it: a
captioner's text and CLAP's need not be cut up alike.
"""

import os
from collections.abc import Callable, Sequence

import torch
from torch import nn
from transformers import AutoTokenizer, ClapTextConfig, ClapTextModelWithProjection

from .audio_loading import as_audio_batch
from .caption_text import read_captions, tokenize_captions
from .config_checks import load_config
from .frame_encoder import fingerprint_tensors, load_frozen
from .model_checks import LOADING
from .model_files import ModelFileError, describe_cause
from .onednn_linear import use_onednn

# Captions embedded together.
BATCH_SIZE = 64
# Tokens of a caption that LAION's CLAP reads.
MAX_TOKENS = 77
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")


class ClapTextEncoder:
    """A CLAP text tower, whose configuration is read at once, and whose weights and tokenizer when needed.

    Args:
        source: a loaded `ClapTextModelWithProjection`, or the folder of one or of a whole CLAP, with its tokenizer.
        tokenizer: of a loaded one.
    """

    part = "clap_text"

    def __init__(self, source: ClapTextModelWithProjection | str, tokenizer=None):
        is_loaded = isinstance(source, nn.Module)
        if is_loaded and tokenizer is None:
            raise ValueError("Got a CLAP text tower without a tokenizer; pass its own as `tokenizer`.")
        self._model, self._source = (source.eval(), None) if is_loaded else (None, source)
        self._tokenizer = tokenizer
        self.config = source.config if is_loaded else load_config(ClapTextConfig, str(source))
        self.device = torch.device("cpu")
        if is_loaded:
            use_onednn(source.requires_grad_(False))

    @property
    def embedding_dim(self) -> int:
        """C."""
        return self.config.projection_dim

    @property
    def model(self) -> ClapTextModelWithProjection:
        """The tower, float32, in evaluation mode."""
        with LOADING:
            if self._model is None:
                model = load_frozen(ClapTextModelWithProjection, self._source)
                use_onednn(model)
                self._model = model.to(self.device)
        return self._model

    @property
    def tokenizer(self):
        """Its tokenizer.

        Raises:
            ModelFileError: it is missing, damaged, or another model's.
        """
        with LOADING:
            if self._tokenizer is None:
                self._tokenizer = self._load_tokenizer()
        return self._tokenizer

    def _load_tokenizer(self):
        """The tokenizer that lies beside the weights."""
        if hasattr(self._source, "fetch"):
            for name in TOKENIZER_FILES:
                self._source.fetch(name)
        folder = str(self._source)
        if not any(os.path.exists(os.path.join(folder, name)) for name in ("tokenizer.json", "vocab.json")):
            raise ModelFileError(f"{folder} has no tokenizer.json; put the text tower's tokenizer beside its weights.")
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except Exception as error:  # tokenizers fail in ways of their own
            raise ModelFileError(f"{folder} has a tokenizer that cannot be read ({describe_cause(error)}).") from error
        if len(tokenizer) > self.config.vocab_size:
            raise ModelFileError(
                f"{folder} has a tokenizer of {len(tokenizer)} tokens, and the text tower knows "
                f"{self.config.vocab_size}; put its own tokenizer there."
            )
        return tokenizer

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._model is not None

    def __getstate__(self) -> dict:
        if self._source is None:
            return self.__dict__
        return {**self.__dict__, "_model": None, "_tokenizer": None}  # they are read again

    def __deepcopy__(self, memo) -> "ClapTextEncoder":
        return self  # frozen: copies share it

    def to(self, device: str | torch.device) -> "ClapTextEncoder":
        """Encode on `device`."""
        self.device = torch.device(device)
        if self._model is not None:
            self._model.to(self.device)
        return self

    def save(self, folder: str) -> None:
        """Write config.json, model.safetensors and the tokenizer's files."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its weights."""
        return fingerprint_tensors(self.model.state_dict())

    @property
    def max_tokens(self) -> int:
        """Tokens of a caption that are read, the two at its ends among them."""
        return min(MAX_TOKENS, self.config.max_position_embeddings - self.config.pad_token_id - 1)

    def embed(self, captions: Sequence[str]) -> torch.Tensor:
        """Embed captions.

        Args:
            captions: N texts; what is longer than `max_tokens` is cut.
        Returns:
            float32 (N, C) on the CPU, each row of length 1.
        """
        rows = tokenize_captions(self.tokenizer, list(captions), truncation=True, max_length=self.max_tokens)
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))  # captions of like length go together
        embeddings = torch.empty(len(rows), self.embedding_dim)
        for start in range(0, len(order), BATCH_SIZE):
            places = order[start : start + BATCH_SIZE]
            embeddings[places] = self.embed_tokens([rows[place] for place in places])
        return embeddings

    def embed_tokens(self, rows: list[list[int]]) -> torch.Tensor:
        """Embed captions of some tokens each: (N, C) on the CPU."""
        ids = [torch.tensor(row) for row in rows]
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
        ids = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.config.pad_token_id)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            out = self.model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device))
            return nn.functional.normalize(out.text_embeds, dim=-1).cpu()


def compare_with_captions(
    clap_text: ClapTextEncoder, audio_embeddings: torch.Tensor, captions: Sequence[Sequence[str]]
) -> list[list[float]]:
    """Cosines of recordings with captions of their own.

    Args:
        clap_text: of the same CLAP as the audio tower.
        audio_embeddings: (B, C), each row of length 1.
        captions: of each recording, any number.
    Returns:
        of each recording, the cosine with each of its captions, -1 to 1.
    """
    texts = list(dict.fromkeys(text for of_clip in captions for text in of_clip))
    if not texts:
        return [[] for _ in captions]
    place = {text: index for index, text in enumerate(texts)}
    cosines = (clap_text.embed(texts) @ audio_embeddings.to("cpu", torch.float32).T).tolist()  # (texts, B)
    return [[cosines[place[text]][clip] for text in of_clip] for clip, of_clip in enumerate(captions)]


def pair_captions(audio, captions) -> tuple[list, list[list[str]], Callable]:
    """Recordings and the captions of each as lists, and what puts results into the form in which captions came.

    Raises:
        TypeError: captions that are no text.
        ValueError: none, or not one entry per recording.
    """
    recordings, is_batch = as_audio_batch(audio)
    if not is_batch:
        texts = read_captions(captions)
        return recordings, [texts], lambda rows: rows[0][0] if isinstance(captions, str) else rows[0]
    entries = None if isinstance(captions, str) else list(captions)
    if entries is None or len(entries) != len(recordings):
        given = "one caption" if entries is None else f"{len(entries)} entries of captions"
        raise ValueError(f"Got {given} for a list of {len(recordings)} recordings; pass one entry per recording.")
    texts = [read_captions(entry) for entry in entries]
    return (
        recordings,
        texts,
        lambda rows: [row[0] if isinstance(entry, str) else row for row, entry in zip(rows, entries, strict=True)],
    )
