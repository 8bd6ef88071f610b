"""The captioner on ONNX Runtime: `EnClapForConditionalGeneration.from_pretrained(..., backend="onnx")`.

Search, processors and scores are those of transformers and of `generation_enclap.py`; the products are the graphs' that
`enclap export` wrote. No weights of torch are read.

A caption has the same bits in any batch. The encoder runs clip by clip, without padding; a step of the decoder takes
the rows of all clips, and each row's products, sums and roundings are its own. What would depend on the longest clip of
a batch is the number of slots that a row attends to: so that is a multiple of `SLOT_STEP`, which leaves the sums of all
that stands before the padding as they are.
"""

import os
import weakref

import numpy as np
import torch
from transformers import BartPreTrainedModel, GenerationConfig
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from .clips_apart import BATCH_ARGUMENTS
from .config_checks import check_captioner_fields, check_generation_file
from .configuration_enclap import NUM_EXTRA_SLOTS, EnClapConfig
from .generation_enclap import SharedAudioGenerationMixin
from .input_checks import check_decoder_rows, check_states
from .model_checks import ACCESS_ARGUMENTS, find_file
from .model_files import file_error, read_json_object
from .onnx_cache import ClipCache, StepCache, find_kept, no_states, round_up
from .onnx_encoder import OnnxEncoder, measure_clips
from .onnx_files import EXPORT_AGAIN, copy_weights, find_graph, find_suffix
from .onnx_front_end import OnnxFrontEnd
from .onnx_names import FILES, FOLDER, name_cache
from .onnx_sessions import GraphSession, choose_providers, import_onnxruntime
from .repository import add_remote_code, push_parts

PAST = "past_key_values"


class OnnxCaptioner(SharedAudioGenerationMixin, BartPreTrainedModel):
    """A captioner whose encoder and decoder are graphs of ONNX; it generates as the one of torch does.

    Args:
        config: of the captioner.
        place: folder or Hub repository, with `onnx/`.
        graphs: path of each part's file: "encoder", "decoder", and "front_end" where there is one.
        num_threads: that work on one run; None is torch's number when a graph is first used.
        providers: of ONNX Runtime; None chooses by the device.
        access: of `ACCESS_ARGUMENTS`, how the repository is reached.
    """

    config_class = EnClapConfig
    main_input_name = "audio_codes"
    _keep_in_fp32_modules = None

    def __init__(
        self,
        config: EnClapConfig,
        place: str,
        graphs: dict[str, str],
        num_threads: int | None = None,
        providers: list | None = None,
        access: dict | None = None,
    ):
        super().__init__(config)
        self.place, self.access, self._providers = place, access or {}, providers
        self._device = torch.device("cpu")
        chosen, folder = choose_providers(self._device, providers), os.path.dirname(os.path.dirname(graphs["decoder"]))
        self.graphs = {part: GraphSession(path, config, folder, num_threads, chosen) for part, path in graphs.items()}
        self._last_states = no_states
        self.encoder = OnnxEncoder(self.graphs["encoder"], config)
        # What a processor encodes recordings with, see [`EnClapProcessor.use_front_end`]; None where it needs torch.
        self.front_end = OnnxFrontEnd(self.graphs["front_end"]) if "front_end" in self.graphs else None

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *args,
        config: EnClapConfig | None = None,
        file_name: str | None = None,
        num_threads: int | None = None,
        providers: list | None = None,
        dtype=None,
        generation_config: GenerationConfig | None = None,
        **kwargs,
    ) -> "OnnxCaptioner":
        """Load the graphs of a repository.

        Args:
            pretrained_model_name_or_path: folder or Hub repository.
            config: None reads config.json.
            file_name: which graphs: None for float32; "int8" for those of 8 bits that suit this machine; or the name
                or the end of the name of a file, such as "qint8_avx512_vnni".
            num_threads, providers: as in the class.
            dtype: float32 or "auto", which the graphs compute in.
            generation_config: None reads generation_config.json.
            kwargs: how the repository is reached, as for every model of transformers.
        Raises:
            ModelFileError: a graph is missing, damaged, of another model, or needs a newer runtime.
            ImportError: onnxruntime is not installed.
            ValueError: another number type than float32, or providers that are not there.
        """
        import_onnxruntime()
        if dtype not in (None, "auto", "float32", torch.float32):
            raise ValueError(
                f'Got `dtype` {dtype}; ONNX graphs compute in float32. Leave it out, or pass `file_name="int8"`.'
            )
        place = os.fspath(pretrained_model_name_or_path)
        access = {name: kwargs[name] for name in ACCESS_ARGUMENTS if kwargs.get(name) is not None}
        config, generation_config = read_configurations(cls, place, access, config, generation_config)
        suffix = find_suffix(file_name, place, access)
        graphs = {part: find_graph(place, part, "" if part == "front_end" else suffix, access) for part in FILES}
        for part in ("encoder", "decoder"):
            if graphs[part] is None:
                path = os.path.join(place, FOLDER, f"{FILES[part]}{suffix}.onnx")
                raise file_error(path, "there is no such file.", EXPORT_AGAIN)
        found = {part: path for part, path in graphs.items() if path is not None}
        model = cls(config, place, found, num_threads, providers, access)
        for part in ("encoder", "decoder"):
            model.graphs[part].session  # noqa: B018 (opened, so that damage is known at once)
        model.generation_config = generation_config
        return model.eval()

    # What transformers asks of a model

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def to(self, device=None, *args, **kwargs) -> "OnnxCaptioner":
        """Run on a device that onnxruntime has a provider for; elsewhere graphs go on running on the CPU."""
        if isinstance(device, (str, int, torch.device)):
            device = torch.device(device)
            if device != self._device and self._providers is None:
                for graph in self.graphs.values():
                    graph.move(choose_providers(device))
            self._device = device
        return self

    def get_encoder(self, *args, **kwargs) -> OnnxEncoder:
        """Encodes recordings, see [`OnnxEncoder`]."""
        return self.encoder

    def close(self) -> None:
        """Free the memory of all graphs; the next use reads them again."""
        for graph in self.graphs.values():
            graph.close()

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs) -> None:
        """Write the repository's model, its weights and all of its graphs, with the code that loads them.

        Args:
            save_directory: made when missing.
            push_to_hub: whether to upload it, too, see [`push_to_hub`].
            kwargs: `repo_id`, `token` and `private` of that.
        """
        os.makedirs(save_directory, exist_ok=True)
        self.config.save_pretrained(save_directory)
        self.generation_config.save_pretrained(save_directory)
        copy_weights(self.place, self.access, str(save_directory))
        add_remote_code(str(save_directory), self.place)
        if push_to_hub:
            name = kwargs.get("repo_id") or os.path.basename(os.path.normpath(save_directory))
            self.push_to_hub(name, token=kwargs.get("token"), private=kwargs.get("private"))

    def push_to_hub(self, repo_id: str, processor=None, **kwargs) -> str:
        """Upload what [`save_pretrained`] writes, see [`EnClapForConditionalGeneration.push_to_hub`]."""
        return push_parts(repo_id, model=self, processor=processor, **kwargs)

    def captions_apart(self, decoding: GenerationConfig, seed: int | list[int] | None, arguments: dict) -> bool:
        """Whether [`generate`] captions clip by clip: samples of a seed alone, the rest has its bits in any batch."""
        whole = [arguments.get(name) for name in BATCH_ARGUMENTS]
        is_whole = any(value is not None and not hasattr(value, "take_clip") for value in whole)
        return seed is not None and bool(decoding.do_sample) and not is_whole

    def _prepare_cache_for_generation(self, *args, **kwargs) -> None:
        """Nothing: the first step makes its own cache."""

    def _reorder_cache(self, cache: StepCache, beam_idx: torch.LongTensor) -> StepCache:
        cache.beam_idx = beam_idx.long()  # the next step reads its past in this order
        return cache

    # Running

    def forward(
        self,
        audio_codes: torch.LongTensor | None = None,
        clap_embedding: torch.FloatTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values: StepCache | None = None,
        use_cache: bool | None = None,
        audio_features: torch.FloatTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> Seq2SeqLMOutput:
        """Logits of the next tokens; arguments are those of [`EnClapForConditionalGeneration.forward`].

        Raises:
            ValueError: labels, which a graph has no use for, padded prompts, or rows that do not fit.
        """
        refuse_others(kwargs)
        if decoder_input_ids is None:
            raise ValueError("Pass `decoder_input_ids` (B, S): ONNX graphs caption, and do not train.")
        if decoder_attention_mask is not None and not decoder_attention_mask.bool().all():
            raise ValueError("Got a `decoder_attention_mask` with padding; pass prompts of one length.")
        if encoder_outputs is None:
            encoder_outputs = self.encoder(audio_codes, clap_embedding, attention_mask, audio_features)
        states = encoder_outputs[0]
        check_states(states, self.config.d_model)
        check_decoder_rows(decoder_input_ids, states.shape[0])
        if past_key_values is None:
            past_key_values = StepCache(self.prepare_clips(states, attention_mask))
        logits = self.run_step(decoder_input_ids, past_key_values)
        return Seq2SeqLMOutput(
            logits=logits,
            past_key_values=None if use_cache is False else past_key_values,
            encoder_last_hidden_state=states,
        )

    def prepare_clips(self, states: torch.Tensor, attention_mask: torch.Tensor | None) -> dict:
        """Keys and values of clips, and the mask of their slots, as the decoder's graph takes them; made once.

        They stay with the tensor of states, and go with it: a search and the scoring of what it found share them, also
        where the latter takes a copy of one clip's states.
        """
        lengths = measure_clips(attention_mask, states.shape[0], states.shape[1] - NUM_EXTRA_SLOTS)
        kept = find_kept(states)
        if kept is not None and kept.is_of(lengths, self.graphs["decoder"]):
            return kept.values
        num_slots = round_up(max(lengths) + NUM_EXTRA_SLOTS)
        heads = self.config.decoder_attention_heads
        size = (len(lengths), heads, num_slots, self.config.d_model // heads)
        arrays = [np.zeros(size, np.float32) for _ in range(2 * self.config.decoder_layers)]
        mask, is_new = np.zeros((len(lengths), num_slots), np.int64), False
        for row, length in enumerate(lengths):
            own = length + NUM_EXTRA_SLOTS
            clip = states[row, :own]
            projected = self.recall_clip(clip)
            if projected is None:
                projected, is_new = self.project_clip(clip), True
            for array, made in zip(arrays, projected, strict=True):
                array[row, :, :own] = made[:, :own]
            mask[row, :own] = 1
        names = [name for name, owner in name_cache(self.config.decoder_layers, PAST) if owner == "encoder"]
        inputs = {**dict(zip(names, arrays, strict=True)), "encoder_attention_mask": mask}
        values = self.graphs["decoder"].as_values(inputs)
        if not states.is_inference():
            states.clip_cache = ClipCache(states._version, lengths, self.graphs["decoder"], arrays, values)
            self._last_states = weakref.ref(states) if is_new else self._last_states
        return values

    def project_clip(self, states: torch.Tensor) -> list[np.ndarray]:
        """Keys and values of a clip, layer by layer: (T + 3, D) -> (heads, T + 3, head width)."""
        names = [name for name, owner in name_cache(self.config.decoder_layers, "present") if owner == "encoder"]
        feeds = {**self.empty_step(), "encoder_hidden_states": states[None].float()}
        return [tensor[0].numpy() for tensor in self.graphs["decoder"].run_tensors(feeds, names)]

    def recall_clip(self, states: torch.Tensor) -> list[np.ndarray] | None:
        """[`project_clip`] of states that are a clip's of the batch before; None of others."""
        last = self._last_states()
        kept = find_kept(last)
        if kept is None or kept.graph is not self.graphs["decoder"]:
            return None
        for row, length in enumerate(kept.lengths):
            if length + NUM_EXTRA_SLOTS == len(states) and torch.equal(last[row, : len(states)], states):
                return [array[row] for array in kept.arrays]
        return None

    def run_step(self, input_ids: torch.Tensor, cache: StepCache) -> torch.Tensor:
        """Logits (rows, S, V) of some tokens, which are added to the cache."""
        graph, num_rows = self.graphs["decoder"], input_ids.shape[0]
        names = [name for name, owner in name_cache(self.config.decoder_layers, "present") if owner == "decoder"]
        order = torch.arange(num_rows) if cache.beam_idx is None else cache.beam_idx
        feeds = {"input_ids": input_ids, "beam_idx": order, "encoder_hidden_states": self.empty_states()}
        if cache.tokens is None:
            heads = self.config.decoder_attention_heads
            nothing = torch.zeros(num_rows, heads, 0, self.config.d_model // heads)
            feeds.update({name.replace("present", PAST): nothing for name in names})
        values = {**graph.as_values(feeds), **(cache.tokens or {}), **cache.clips}
        logits, *tokens = graph.run(values, ["logits", *names])
        cache.tokens = {name.replace("present", PAST): value for name, value in zip(names, tokens, strict=True)}
        cache.num_tokens, cache.beam_idx = cache.num_tokens + input_ids.shape[1], None
        return torch.from_numpy(logits.numpy()).to(input_ids.device)

    def empty_states(self) -> torch.Tensor:
        """No slot of no interest: the keys and values of a clip are made by a run of their own."""
        return torch.zeros(1, 0, self.config.d_model)

    def empty_step(self) -> dict[str, torch.Tensor]:
        """Inputs of a step, for a run that asks for none of its outputs."""
        heads = self.config.decoder_attention_heads
        nothing = torch.zeros(1, heads, 0, self.config.d_model // heads)
        past = {name: nothing for name, _ in name_cache(self.config.decoder_layers, PAST)}
        tokens = torch.zeros(1, 1, dtype=torch.long)
        mask = torch.zeros(1, 0, dtype=torch.long)
        return {**past, "input_ids": tokens, "beam_idx": tokens[0], "encoder_attention_mask": mask}


def refuse_others(arguments: dict) -> None:
    """Refuse arguments that would change what is computed, and that a graph does not take."""
    names = [
        name
        for name in ("labels", "mcm_targets", "inputs_embeds", "decoder_inputs_embeds")
        if arguments.get(name) is not None
    ]
    names += [name for name in ("output_attentions", "output_hidden_states") if arguments.get(name)]
    if names:
        raise ValueError(f"Got `{names[0]}`, which ONNX graphs do not take; load the model without `backend`.")


def read_configurations(model_class, place: str, access: dict, config, generation_config):
    """config.json and generation_config.json of a repository, checked, where the caller brings none.

    Raises:
        ModelFileError: a file is missing or damaged.
    """
    path = find_file(place, "config.json", access)
    if config is None:
        if path is None:
            raise file_error(os.path.join(place, "config.json"), "there is no such file.")
        fields = read_json_object(path)
        check_captioner_fields(fields, path, EnClapConfig)
        config = EnClapConfig.from_pretrained(place, **access)
    if generation_config is None:
        if find_file(place, "generation_config.json", access) is None:
            return config, GenerationConfig.from_model_config(config)
        check_generation_file(os.path.dirname(path), read_json_object(path))
        generation_config = GenerationConfig.from_pretrained(place, **access)
    return config, generation_config
