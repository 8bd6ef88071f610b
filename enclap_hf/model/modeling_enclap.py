"""EnCLAP: a BART that reads a recording as codec frames and one CLAP vector, and writes a caption.

What differs from BART:

* the encoder's input, CLAP | <s> | frames | </s>, which is built from the frames (codes, or continuous features), the
  CLAP vector and the frames' mask, so that callers never count the extra 3 slots (`encoder_enclap.py`);
* masked codec modelling: the model hides codes, and one linear head per codebook names them (`losses_enclap.py`);
* the beams of a clip share its cross-attention (`generation_enclap.py`);
* linear layers multiply with the faster of a CPU's two libraries (`onednn_linear.py`);
* on a CPU a clip has the same bits alone and in any batch (`row_bits.py`).

Layers, decoder, cache and search are those of transformers.
"""

import os
from dataclasses import dataclass

import torch
from torch import nn
from transformers import BartForConditionalGeneration, BartModel, BartPreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput, Seq2SeqModelOutput
from transformers.models.bart.modeling_bart import (
    BartDecoder,
    BartScaledWordEmbedding,
    shift_tokens_right,
)

from .configuration_enclap import NUM_EXTRA_SLOTS, EnClapConfig
from .encoder_enclap import EnClapEncoder, build_slot_mask
from .generation_enclap import (
    PUBLISHED_DECODING,
    RowAttention,
    SharedAudioGenerationMixin,
    SharedCrossAttention,
    broadcast_slot_mask,
)
from .input_checks import (
    check_decoder_rows,
    check_labels,
    check_labels_were_kept,
    check_states,
    check_targets,
)
from .losses_enclap import IGNORED_TARGET, masked_codec_loss, smoothed_caption_loss
from .model_checks import load_checked
from .onednn_linear import mark_rows, use_onednn
from .repository import add_remote_code, is_checkpoint_folder, push_parts


@dataclass
class EnClapSeq2SeqLMOutput(Seq2SeqLMOutput):
    """[`~transformers.modeling_outputs.Seq2SeqLMOutput`] with the two parts of the loss.

    `loss` = `caption_loss` + `mcm_loss_weight` * `mcm_loss`; a part is None when its targets were not passed.
    """

    caption_loss: torch.FloatTensor | None = None
    mcm_loss: torch.FloatTensor | None = None


class EnClapModel(BartModel):
    """EnCLAP without a head: the audio encoder and BART's decoder."""

    config_class = EnClapConfig
    main_input_name = "audio_codes"

    def __init__(self, config: EnClapConfig):
        BartPreTrainedModel.__init__(self, config)  # BartModel's own would build a text encoder first
        embed_scale = config.d_model**0.5 if config.scale_embedding else 1.0
        self.shared = BartScaledWordEmbedding(
            config.vocab_size, config.d_model, config.pad_token_id, embed_scale=embed_scale
        )
        self.encoder = EnClapEncoder(config)
        self.decoder = BartDecoder(config)
        for index, layer in enumerate(self.decoder.layers):
            size = (config.d_model, config.decoder_attention_heads)
            options = {"dropout": config.attention_dropout, "is_decoder": True, "config": config, "layer_idx": index}
            layer.self_attn = RowAttention(*size, is_causal=True, **options)
            layer.encoder_attn = SharedCrossAttention(*size, **options)
        use_onednn(self)
        mark_rows(self.decoder)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """Load as every model of transformers, but refuse damaged files, and weights that are missing or not finite.

        Raises:
            ModelFileError: one line that names the file and the fault.
        """
        return load_checked(super().from_pretrained, cls, pretrained_model_name_or_path, *args, **kwargs)

    def forward(
        self,
        audio_codes: torch.LongTensor | None = None,
        clap_embedding: torch.FloatTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        return_dict: bool | None = None,
        audio_features: torch.FloatTensor | None = None,
        **kwargs,
    ) -> Seq2SeqModelOutput | tuple:
        """Encode a batch of recordings and decode `decoder_input_ids` (B, S) over them.

        The audio arguments are those of [`EnClapEncoder.forward`], the others those of `BartModel.forward`.

        Returns:
            `Seq2SeqModelOutput` with `last_hidden_state` (B, S, D) and `encoder_last_hidden_state` (B, T + 3, D);
            a tuple with `return_dict=False`.
        Raises:
            ValueError: no decoder input, one of other rows than the recordings, or what the encoder raises.
        """
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            raise ValueError(
                "Pass `decoder_input_ids` (B, S) or `decoder_inputs_embeds` (B, S, D); to train or to caption, use "
                "`EnClapForConditionalGeneration` with `labels` or its `generate()`."
            )
        if encoder_outputs is None:
            audio = (audio_codes, clap_embedding, attention_mask, inputs_embeds, audio_features)
            encoder_outputs = self.encode(*audio, **kwargs)
        states = encoder_outputs[0]
        check_states(states, self.config.d_model)
        slot_mask = build_slot_mask(attention_mask, states.shape[0], states.shape[1] - NUM_EXTRA_SLOTS)
        decoder_input = decoder_input_ids if decoder_inputs_embeds is None else decoder_inputs_embeds
        num_rows = decoder_input.shape[0]
        check_decoder_rows(decoder_input, states.shape[0], kwargs.get("decoder_attention_mask"))
        if slot_mask is not None and num_rows != states.shape[0]:  # `len` would fix the batch size of an exported graph
            slot_mask = broadcast_slot_mask(slot_mask, states)
        outputs = super().forward(
            attention_mask=slot_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_inputs_embeds=decoder_inputs_embeds,
            encoder_outputs=encoder_outputs,
            return_dict=True,
            **kwargs,
        )
        return outputs if wants_dict(self.config, return_dict) else outputs.to_tuple()

    def encode(
        self, audio_codes, clap_embedding, attention_mask, inputs_embeds, audio_features=None, **kwargs
    ) -> BaseModelOutput:
        """Run the encoder alone, with those of `kwargs` that concern it."""
        wanted = {name: value for name, value in kwargs.items() if name.startswith("output_")}
        return self.encoder(
            audio_codes=audio_codes,
            clap_embedding=clap_embedding,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            audio_features=audio_features,
            return_dict=True,
            **wanted,
        )


class EnClapForConditionalGeneration(SharedAudioGenerationMixin, BartForConditionalGeneration):
    """The EnCLAP captioner: [`EnClapModel`], a text head tied to the embeddings, and one MCM head per codebook.

    Example:
        >>> from enclap_hf import DEFAULT_MODEL, EnClapForConditionalGeneration, EnClapProcessor
        >>> model = EnClapForConditionalGeneration.from_pretrained(DEFAULT_MODEL)
        >>> processor = EnClapProcessor.from_pretrained(DEFAULT_MODEL)
    """

    config_class = EnClapConfig
    main_input_name = "audio_codes"
    # Both losses are divided by the counts that Trainer passes as `num_items_in_batch`.
    accepts_loss_kwargs = True

    def __init__(self, config: EnClapConfig):
        BartPreTrainedModel.__init__(self, config)  # BartForConditionalGeneration's own would build a BartModel first
        self.model = EnClapModel(config)
        self.register_buffer("final_logits_bias", torch.zeros((1, config.vocab_size)))
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.mcm_heads = nn.ModuleList(
            nn.Linear(config.d_model, config.codec_vocab_size)
            for _ in range(config.num_codebooks)  # none for features
        )
        use_onednn(self)
        mark_rows(self.lm_head)
        self.post_init()
        self.generation_config._from_model_config = False  # it holds more than the configuration does
        self.generation_config.update(
            **PUBLISHED_DECODING, forced_bos_token_id=config.bos_token_id, forced_eos_token_id=config.eos_token_id
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, backend: str = "torch", **kwargs):
        """Load as every model of transformers, but refuse damaged files, and weights that are missing or not finite.

        Args:
            backend: "torch"; "onnx" for the graphs that `enclap export` wrote into the repository, see
                [`~onnx_captioner.OnnxCaptioner.from_pretrained`]; or "onnx-int8", as "onnx" with `file_name="int8"`.
        Raises:
            ModelFileError: one line that names the file and the fault.
            ValueError: another backend.
        """
        if backend in ("onnx", "onnx-int8"):
            from .onnx_captioner import OnnxCaptioner

            graphs = {"file_name": "int8"} if backend == "onnx-int8" else {}
            return OnnxCaptioner.from_pretrained(pretrained_model_name_or_path, **{**graphs, **kwargs})
        if backend != "torch":
            raise ValueError(f'Got `backend`={backend!r}; expected "torch", "onnx" or "onnx-int8".')
        return load_checked(super().from_pretrained, cls, pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: str | None = None) -> None:
        """Nothing: the code comes with `add_remote_code`, where transformers would add it to every checkpoint, too."""

    def forward(
        self,
        audio_codes: torch.LongTensor | None = None,
        clap_embedding: torch.FloatTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        mcm_targets: torch.LongTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_dict: bool | None = None,
        audio_features: torch.FloatTensor | None = None,
        use_mcm: bool | None = None,
        **kwargs,
    ) -> EnClapSeq2SeqLMOutput | tuple:
        """Compute logits and losses for a batch of recordings.

        Args:
            audio_codes: (B, T, K) codes, `codec_vocab_size` where hidden or padded.
            clap_embedding: (B, C) CLAP vector, or None.
            attention_mask: (B, T), 1 on a clip's own frames, 0 on padding.
            labels: (B, S) caption ids, -100 on padding.
            mcm_targets: (B, T, K) the codes to hide and to name, -100 everywhere else; the model hides them itself.
                Without labels and decoder input, only the encoder runs and `logits` is None.
            decoder_input_ids: (B, S); made from `labels` when left out.
            encoder_outputs: what the encoder returned before; it is not run again.
            inputs_embeds: (B, T, D) embedded frames in place of `audio_codes`.
            decoder_inputs_embeds: (B, S, D) in place of `decoder_input_ids`.
            use_cache: keep keys and values for the next token.
            num_items_in_batch: over how many label tokens the caption loss is averaged, when this batch is a part of
                a larger one; or (1 + K,), followed by the number of hidden codes of each codebook.
            return_dict: False returns a tuple.
            audio_features: (B, T, F) continuous frames in place of `audio_codes`, where the captioner reads those.
            use_mcm: hide the codes of `mcm_targets` and compute that loss; None does so in training, where the codes
                come hidden, and where there are no `labels`: else an evaluation reads all codes.
            kwargs: the other arguments of `BartModel.forward`.
        Returns:
            [`EnClapSeq2SeqLMOutput`], `logits` (B, S, V).
        Raises:
            ValueError: no target and no decoder input, targets of other rows or frames than the recordings, or what the
                encoder raises.
        Source: EnCLAP, arXiv 2401.17690, section 2.
        """
        if labels is not None:
            check_labels(labels, self.config)
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        elif decoder_input_ids is None and decoder_inputs_embeds is None:
            check_labels_were_kept(num_items_in_batch)
        if mcm_targets is not None and not self.wants_mcm(use_mcm, audio_codes, mcm_targets, labels is not None):
            mcm_targets = None
        elif mcm_targets is not None and audio_codes is not None and audio_codes.shape == mcm_targets.shape:
            audio_codes = audio_codes.long().masked_fill(mcm_targets != IGNORED_TARGET, self.config.codec_mask_token_id)
        if encoder_outputs is None:
            audio = (audio_codes, clap_embedding, attention_mask, inputs_embeds, audio_features)
            encoder_outputs = self.model.encode(*audio, **kwargs)
        check_states(encoder_outputs[0], self.config.d_model)
        check_targets(encoder_outputs[0], labels, mcm_targets, self.config)
        if decoder_input_ids is None and decoder_inputs_embeds is None and mcm_targets is not None:
            logits, outputs = None, encoder_only_output(encoder_outputs)
        else:
            outputs = self.model(
                attention_mask=attention_mask,
                decoder_input_ids=decoder_input_ids,
                decoder_inputs_embeds=decoder_inputs_embeds,
                encoder_outputs=encoder_outputs,
                use_cache=use_cache,
                return_dict=True,
                **kwargs,
            )
            logits = self.lm_head(outputs.last_hidden_state)
            logits += self.final_logits_bias.to(logits.dtype)  # in place: logits are the largest tensor of a step
        caption_loss = mcm_loss = loss = None
        if labels is not None:
            caption_loss = loss = smoothed_caption_loss(logits, labels, self.config.label_smoothing, num_items_in_batch)
        if mcm_targets is not None:
            states = outputs.encoder_last_hidden_state
            mcm_loss = masked_codec_loss(states, mcm_targets, self.mcm_heads, labels, num_items_in_batch)
            loss = self.config.mcm_loss_weight * mcm_loss + (0.0 if caption_loss is None else caption_loss)
        result = EnClapSeq2SeqLMOutput(
            loss=loss,
            logits=logits,
            **{name: value for name, value in outputs.items() if name != "last_hidden_state"},
            caption_loss=caption_loss,
            mcm_loss=mcm_loss,
        )
        return result if wants_dict(self.config, return_dict) else result.to_tuple()

    def wants_mcm(self, use_mcm: bool | None, audio_codes, mcm_targets: torch.Tensor, has_labels: bool) -> bool:
        """Whether a batch with targets of masked codec modelling is to compute it, see `use_mcm` of [`forward`]."""
        if use_mcm is not None:
            return use_mcm
        if self.training or not has_labels or audio_codes is None or audio_codes.shape != mcm_targets.shape:
            return True
        if torch.compiler.is_compiling():
            return False
        return bool((audio_codes[mcm_targets != IGNORED_TARGET] == self.config.codec_mask_token_id).all())

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs) -> None:
        """Write the model as every transformers model, and the code that loads it without the package.

        A Trainer's checkpoints, folders called `checkpoint-*`, hold no code.
        """
        super().save_pretrained(save_directory, **kwargs)
        if not is_checkpoint_folder(save_directory):
            add_remote_code(str(save_directory), self.config._name_or_path or None)
        if push_to_hub:
            name = kwargs.get("repo_id") or os.path.basename(os.path.normpath(save_directory))
            self.push_to_hub(name, token=kwargs.get("token"), private=kwargs.get("private"))

    def push_to_hub(self, repo_id: str, processor=None, **kwargs) -> str:
        """Upload the model with the code to load it; together with a processor, as a complete repository.

        Args:
            repo_id: "name" or "owner/name".
            processor: [`EnClapProcessor`], uploaded in the same commit. Without one, the repository is complete after
                `processor.push_to_hub(repo_id)`.
            kwargs: `private`, `token`, `revision`, `commit_message`, `commit_description`, `create_pr`, `tags`,
                `max_shard_size`, as in every transformers model.
        Returns:
            the commit's address.
        """
        return push_parts(repo_id, model=self, processor=processor, **kwargs)

    def prepare_decoder_input_ids_from_labels(self, labels: torch.LongTensor) -> torch.LongTensor:
        """Shift labels (B, S) one to the right, starting with `decoder_start_token_id`."""
        return shift_tokens_right(labels, self.config.pad_token_id, self.config.decoder_start_token_id)


def encoder_only_output(encoder_outputs: BaseModelOutput) -> Seq2SeqModelOutput:
    """What a model returns when its decoder does not run."""
    return Seq2SeqModelOutput(
        encoder_last_hidden_state=encoder_outputs[0],
        encoder_hidden_states=getattr(encoder_outputs, "hidden_states", None),
        encoder_attentions=getattr(encoder_outputs, "attentions", None),
    )


def wants_dict(config: EnClapConfig, return_dict: bool | None) -> bool:
    """Whether a forward returns a `ModelOutput` rather than a tuple."""
    return config.return_dict if return_dict is None else return_dict
