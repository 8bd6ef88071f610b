"""The captioner as modules that export: the same weights as `modeling_enclap.py`, without what depends on the batch.

    encoder_model          audio_codes (B, T, K), clap_embedding (B, C)              ->  last_hidden_state (B, T + 3, D)
    decoder_model_merged   encoder_hidden_states (B, T + 3, D)     once a clip       ->  keys and values of the clip
                           input_ids (B * n, S), keys and values, ...   each step    ->  logits, keys and values so far

The decoder's two parts share no weights and no tensors: one run asks for the outputs of the one, every other run for
those of the other. So a clip's keys and values are made once, and are inputs alone from then on.
"""

import copy

import torch
from torch import nn


class EncoderGraph(nn.Module):
    """The encoder over clips of one length; padding is left to whoever needs batches."""

    def __init__(self, model):
        super().__init__()
        # <s> and </s> are all that the encoder reads of the text embeddings, which are a third of a graph's size.
        self.encoder = copy.copy(model.model.encoder)
        self.encoder._modules = dict(self.encoder._modules)
        num_rows = max(model.config.bos_token_id, model.config.eos_token_id) + 1
        self.encoder.embed_tokens = nn.Embedding.from_pretrained(self.encoder.embed_tokens.weight[:num_rows].detach())
        self.reads_codes = model.config.frame_kind == "codes"

    def forward(self, frames: torch.Tensor, clap_embedding: torch.Tensor | None = None) -> torch.Tensor:
        """Codes (B, T, K) or features (B, T, F), and CLAP vectors (B, C) -> (B, T + 3, D)."""
        name = "audio_codes" if self.reads_codes else "audio_features"
        return self.encoder(**{name: frames}, clap_embedding=clap_embedding).last_hidden_state


class DecoderGraph(nn.Module):
    """One step of a search, or a whole prompt: the decoder with its keys and values as plain tensors.

    The beams of a clip read the one copy of its keys and values, as in `generation_enclap.py`: n beams of S tokens are
    n * S queries.
    """

    def __init__(self, model):
        super().__init__()
        self.decoder, self.lm_head = model.model.decoder, model.lm_head
        self.register_buffer("logits_bias", model.final_logits_bias[0])

    def forward(
        self,
        encoder_hidden_states: torch.Tensor,
        encoder_attention_mask: torch.Tensor,
        input_ids: torch.Tensor,
        beam_idx: torch.Tensor,
        past: list[list[torch.Tensor]],
    ):
        """Run both parts, see the module.

        Args:
            encoder_hidden_states: (b, t, D) of the clips whose keys and values are wanted; any number, also of slots.
            encoder_attention_mask: (B, slots) int64, 1 on a clip's own slots.
            input_ids: (B * n, S), the tokens behind those of the past.
            beam_idx: (B * n,), the row of the past that each row goes on from.
            past: of each layer the decoder's keys and values (rows, heads, P, head width), and those of the clips
                (B, heads, slots, head width).
        Returns:
            logits (B * n, S, V); of each layer keys and values (B * n, heads, P + S, head width); and of each layer
            those of `encoder_hidden_states` (b, heads, t, head width).
        """
        clips = [self.project_clip(layer.encoder_attn, encoder_hidden_states) for layer in self.decoder.layers]
        num_tokens, num_past = input_ids.shape[1], past[0][0].shape[2]
        positions = torch.arange(num_tokens, device=input_ids.device) + num_past
        table = self.decoder.embed_positions
        states = self.decoder.embed_tokens(input_ids) + nn.functional.embedding(positions + table.offset, table.weight)
        states = self.decoder.layernorm_embedding(states)
        later = torch.arange(num_past + num_tokens, device=input_ids.device) > positions[:, None]  # (S, P + S)
        hidden = encoder_attention_mask[:, None, None, :] == 0  # (B, 1, 1, slots)
        present = []
        for layer, (keys, values, clip_keys, clip_values) in zip(self.decoder.layers, past, strict=True):
            own = (keys.index_select(0, beam_idx), values.index_select(0, beam_idx))
            attended, own = self.attend_to_tokens(layer.self_attn, states, own, later)
            present.append(own)
            states = layer.self_attn_layer_norm(states + attended)
            attended = self.attend_to_clip(layer.encoder_attn, states, clip_keys, clip_values, hidden)
            states = layer.encoder_attn_layer_norm(states + attended)
            states = layer.final_layer_norm(states + layer.fc2(layer.activation_fn(layer.fc1(states))))
        # Of rows alone: then the matrix, which is that of the embeddings, is one constant for both.
        logits = nn.functional.linear(states.flatten(0, 1), self.lm_head.weight, self.logits_bias)
        return logits.unflatten(0, input_ids.shape), present, clips

    def project_clip(self, attention: nn.Module, states: torch.Tensor) -> list[torch.Tensor]:
        """A clip's keys and values for one layer: (b, t, D) -> two of (b, heads, t, head width)."""
        return [split_heads(projection(states), attention) for projection in (attention.k_proj, attention.v_proj)]

    def attend_to_tokens(self, attention: nn.Module, states: torch.Tensor, past: tuple, later: torch.Tensor):
        """Self-attention over the past and the new tokens; returns its output, and keys and values so far."""
        queries = split_heads(attention.q_proj(states) * attention.scaling, attention)
        new = self.project_clip(attention, states)
        keys, values = (torch.cat(pair, dim=2) for pair in zip(past, new, strict=True))
        scores = (queries @ keys.transpose(2, 3)).masked_fill(later, lowest(queries))
        attended = scores.softmax(-1) @ values
        return attention.out_proj(attended.transpose(1, 2).flatten(2)), [keys, values]

    def attend_to_clip(
        self, attention: nn.Module, states: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, hidden: torch.Tensor
    ) -> torch.Tensor:
        """Cross-attention of all beams of each clip: (B * n, S, D) -> the same."""
        num_rows, num_tokens, width = states.shape
        queries = (attention.q_proj(states) * attention.scaling).reshape(keys.shape[0], -1, width)  # (B, n * S, D)
        scores = split_heads(queries, attention) @ keys.transpose(2, 3)
        attended = scores.masked_fill(hidden, lowest(scores)).softmax(-1) @ values
        return attention.out_proj(attended.transpose(1, 2).reshape(num_rows, num_tokens, width))


def split_heads(states: torch.Tensor, attention: nn.Module) -> torch.Tensor:
    """(rows, S, D) -> (rows, heads, S, head width)."""
    return states.unflatten(2, (-1, attention.head_dim)).transpose(1, 2)


def lowest(tensor: torch.Tensor) -> float:
    """What a score becomes that no attention is paid to."""
    return torch.finfo(tensor.dtype).min
