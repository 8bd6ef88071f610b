"""Tiny frame encoders of every family, with codebooks in which sounds have unlike codes; and captioners of them."""

import torch
from transformers import (
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    MimiConfig,
    MimiModel,
    PreTrainedModel,
    XcodecConfig,
    XcodecModel,
)

from conftest import build_clap, build_codec, build_feature_extractor, build_model, build_tokenizer, make_clip
from enclap_hf import EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.model.clap_frames import ClapFrames
from enclap_hf.model.encodec_frames import EncodecLatents
from enclap_hf.model.frame_encoder import FrameEncoder, freeze
from enclap_hf.model.frame_encoder_families import find_family
from enclap_hf.model.log_mel_frames import LogMelFrames

SMALL_ENCODEC = {"num_filters": 4, "hidden_size": 16, "codebook_size": 32, "num_lstm_layers": 1}
# As facebook/encodec_32khz, which MusicGen reads: looks ahead, 50 frames a second.
ENCODEC_32_KHZ = {
    "sampling_rate": 32_000,
    "upsampling_ratios": [8, 5, 4, 4],
    "use_causal_conv": False,
    "use_conv_shortcut": False,
    "codebook_size": 2048,
    "target_bandwidths": [2.2],  # 4 codebooks of 11 bits
}
# As facebook/encodec_48khz: stereo, scaled, in segments of a second that overlap.
ENCODEC_48_KHZ = {
    "sampling_rate": 48_000,
    "audio_channels": 2,
    "normalize": True,
    "chunk_length_s": 1.0,
    "overlap": 0.01,
    "norm_type": "time_group_norm",
    "use_causal_conv": False,
    "target_bandwidths": [1.5, 3.0],  # 2 and 4 codebooks of 5 bits
}
DAC_RATIOS = {16_000: [2, 4, 5, 8], 24_000: [2, 4, 5, 8], 44_100: [2, 4, 8, 8]}


def build_encodec(seed: int = 0, **fields) -> EncodecModel:
    """An EnCodec whose random codebooks lie where the latents of sound do."""
    torch.manual_seed(seed)
    codec = EncodecModel(EncodecConfig(**{**SMALL_ENCODEC, "target_bandwidths": [1.5], **fields})).eval()
    for name, parameter in codec.encoder.named_parameters():
        if name.endswith("original0"):  # the default start leaves the latent near zero
            parameter.data.mul_(3.0)
        elif name.endswith("conv.bias"):  # and what is left of it the same for every sound
            parameter.data.zero_()
    with torch.no_grad():
        channels = codec.config.audio_channels
        latent = torch.cat([codec.encoder(sound.expand(1, channels, -1))[0].T for sound in make_sounds(codec)])
    fill_codebooks([layer.codebook.embed for layer in codec.quantizer.layers], latent)
    return codec


def build_dac(sampling_rate: int = 16_000, seed: int = 0) -> DacModel:
    torch.manual_seed(seed)
    config = DacConfig(
        sampling_rate=sampling_rate,
        downsampling_ratios=DAC_RATIOS[sampling_rate],
        encoder_hidden_size=4,
        decoder_hidden_size=32,
        n_codebooks=4,
        codebook_size=32,
        codebook_dim=4,
    )
    codec = DacModel(config).eval()
    with torch.no_grad():
        for name, parameter in codec.named_parameters():
            if name.endswith("weight") and "codebook" not in name:  # its start leaves the latent near zero
                torch.nn.init.kaiming_normal_(parameter)
        for quantizer in codec.quantizer.quantizers:
            quantizer.codebook.weight.normal_()
    return codec


def build_mimi(seed: int = 0) -> MimiModel:
    torch.manual_seed(seed)
    config = MimiConfig(
        hidden_size=32,
        num_filters=4,
        num_hidden_layers=1,
        intermediate_size=64,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=8,
        codebook_size=32,
        codebook_dim=16,
        vector_quantization_hidden_dimension=16,
        num_quantizers=4,
        upsample_groups=32,
        sliding_window=50,
    )
    codec = MimiModel(config).eval()
    latents = []

    def listen(module, args, output):
        latents.append(output[0].T)

    parts = (codec.quantizer.semantic_residual_vector_quantizer, codec.quantizer.acoustic_residual_vector_quantizer)
    for part in parts:
        latents.clear()
        hook = part.input_proj.register_forward_hook(listen)
        with torch.no_grad():
            for sound in make_sounds(codec):
                codec.encode(sound[None, None])
        hook.remove()
        for layer in part.layers:
            layer.codebook._embed = None  # what it computed of the empty codebook
        fill_codebooks([layer.codebook.embed_sum for layer in part.layers], torch.cat(latents))
    return codec


def build_xcodec(seed: int = 0) -> XcodecModel:
    torch.manual_seed(seed)
    config = XcodecConfig(
        codebook_size=32,
        target_bandwidths=[0.5, 1.0],  # 2 and 4 codebooks of 5 bits
        acoustic_model_config={
            "encoder_hidden_size": 4,
            "decoder_hidden_size": 32,
            "hidden_size": 16,
            "downsampling_ratios": [8, 5, 4, 2],
            "upsampling_ratios": [8, 5, 4, 2],
        },
        semantic_model_config={
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "conv_dim": [8] * 7,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
        },
    )
    codec = XcodecModel(config).eval()
    with torch.no_grad():
        for parameter in codec.acoustic_encoder.parameters():
            if parameter.dim() == 3 and parameter.shape[2] > 1:  # its start leaves the latent near zero
                torch.nn.init.kaiming_normal_(parameter)
    latents = []
    hook = codec.fc.register_forward_hook(lambda module, args, output: latents.append(output[0]))
    with torch.no_grad():
        for sound in make_sounds(codec):
            codec.encode(sound[None, None])
    hook.remove()
    fill_codebooks([quantizer.codebook.embed for quantizer in codec.quantizer.quantizers], torch.cat(latents))
    return codec


def make_sounds(codec: PreTrainedModel) -> list[torch.Tensor]:
    """Two sounds at a codec's rate, of whole frames."""
    rate = getattr(codec.config, "sampling_rate", None) or codec.config.sample_rate
    return [torch.from_numpy(make_clip(0.96, seed=100 + i, sampling_rate=rate)) for i in range(2)]


@torch.no_grad()
def fill_codebooks(codebooks: list[torch.Tensor], latent: torch.Tensor) -> None:
    """Random entries about the latents (T, H), each codebook's smaller than the one before."""
    for index, codebook in enumerate(codebooks):
        noise = torch.randn(codebook.shape)
        codebook.copy_(0.8**index * latent.std(0) * noise + (latent.mean(0) if index == 0 else 0))


# Each with the sampling rate, the samples of a frame, and a function that makes it.
CODECS = {
    "encodec_24": (24_000, 320, build_codec),
    "encodec_32": (32_000, 640, lambda: build_encodec(**ENCODEC_32_KHZ)),
    "encodec_48": (48_000, 320, lambda: build_encodec(**ENCODEC_48_KHZ)),
    "dac_16": (16_000, 320, lambda: build_dac(16_000)),
    "dac_24": (24_000, 320, lambda: build_dac(24_000)),
    "dac_44": (44_100, 512, lambda: build_dac(44_100)),
    "mimi": (24_000, 1920, build_mimi),
    "xcodec": (16_000, 320, build_xcodec),
}


def build_features(name: str) -> FrameEncoder:
    """A tiny frame encoder of a continuous kind."""
    if name == "encodec_latents":
        return EncodecLatents(freeze(build_codec()))
    if name == "log_mel":
        return LogMelFrames(sampling_rate=24_000, hop_length=320, n_fft=512, num_mel_bins=16)
    return ClapFrames(freeze(build_clap()))


def build_frame_encoder(name: str) -> FrameEncoder:
    """A tiny frame encoder by its name in `CODECS` or `FEATURES`."""
    if name in FEATURES:
        return build_features(name)
    codec = CODECS[name][2]()
    return find_family(codec.config.model_type)(freeze(codec))


def build_frame_processor(encoder: FrameEncoder, with_clap: bool = True) -> EnClapProcessor:
    clap = build_clap() if with_clap else None
    return EnClapProcessor.from_encoders(build_feature_extractor(), build_tokenizer(), encoder, clap)


def build_captioner_for(processor: EnClapProcessor, **fields) -> EnClapForConditionalGeneration:
    """A tiny captioner of what a processor gives."""
    encoder, clap = processor.frame_encoder, processor.clap_encoder
    of_frames = {"frame_kind": encoder.kind, "frame_rate": encoder.frame_rate}
    of_frames |= {"frame_encoder_type": processor.frame_encoder_type, "clap_dim": clap.embedding_dim if clap else 0}
    if encoder.kind == "codes":
        of_frames |= {"num_codebooks": processor.num_codebooks, "codec_vocab_size": encoder.codebook_size}
    else:
        of_frames |= {"frame_dim": encoder.frame_dim}
    model = build_model(**{**of_frames, **fields})
    model.generation_config.max_length = 12
    return model


# Each with the sampling rate and the samples of a frame.
FEATURES = {"encodec_latents": (24_000, 320), "log_mel": (24_000, 320), "clap_frames": (16_000, 1000)}
