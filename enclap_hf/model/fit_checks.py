"""Whether feature extractor, frame encoder, CLAP tower and captioner are made for each other; one line where not."""

import numbers

import torch

from .configuration_enclap import EnClapConfig

# What a frame encoder says of its frames, all numbers above 0.
SIZES_OF_KIND = {"codes": ("num_codebooks", "codebook_size"), "features": ("frame_dim",)}


def check_frame_encoder(feature_extractor, encoder, num_codebooks: int | None) -> None:
    """Compare what the feature extractor was saved with and what the frame encoder says; a new one takes it over.

    Raises:
        ValueError: they differ in their rates, the codec has fewer codebooks than are to be kept, or the encoder does
            not say what its frames are.
    """
    check_declared_sizes(encoder)
    stated = (feature_extractor.codec_sampling_rate, feature_extractor.codec_hop_length)
    hop_length = encoder.sampling_rate / encoder.frame_rate
    hop_length = int(hop_length) if hop_length == int(hop_length) else hop_length
    if stated[0] is None:
        feature_extractor.codec_sampling_rate, feature_extractor.codec_hop_length = encoder.sampling_rate, hop_length
        stated = (encoder.sampling_rate, hop_length)
    if stated[0] != encoder.sampling_rate:
        raise ValueError(
            f"The feature extractor was saved for a frame encoder of {stated[0]} Hz (`codec_sampling_rate`), and this "
            f"one ({name_encoder(encoder)}) reads {encoder.sampling_rate} Hz; use the encoder that belongs to it."
        )
    if abs(stated[1] - hop_length) > 1e-6 * hop_length:
        raise ValueError(
            f"The feature extractor was saved for frames of {stated[1]} samples (`codec_hop_length`), and this frame "
            f"encoder's ({name_encoder(encoder)}) have {hop_length}; use the encoder that belongs to it."
        )
    if encoder.kind == "codes" and num_codebooks is not None and num_codebooks > encoder.num_codebooks:
        raise ValueError(
            f"Asked for {num_codebooks} codebooks of a codec that has {encoder.num_codebooks} "
            f"({name_encoder(encoder)}); lower `num_codebooks`, or use a codec with more."
        )


def check_declared_sizes(encoder) -> None:
    """Refuse a frame encoder, which may be anybody's class, that does not say what its frames are."""
    kind = getattr(encoder, "kind", None)
    if kind not in SIZES_OF_KIND:
        raise ValueError(
            f"Got a frame encoder ({name_encoder(encoder)}) of the `kind` {kind!r}; expected "
            f"{' or '.join(map(repr, SIZES_OF_KIND))}."
        )
    for name in ("sampling_rate", "frame_rate", *SIZES_OF_KIND[kind]):
        value = getattr(encoder, name, None)
        if not isinstance(value, numbers.Real) or isinstance(value, bool) or not value > 0:
            raise ValueError(
                f"Got a frame encoder ({name_encoder(encoder)}) with `{name}` {value!r}; expected a number above 0."
            )


def check_frames(frames: list, num_clips: int, encoder, num_codebooks: int | None) -> list[torch.Tensor]:
    """Refuse frames that are not what their encoder said: codes (T, K) or features (T, F) of each clip.

    Args:
        frames: of each clip.
        num_clips: that were encoded.
        encoder: which gave them.
        num_codebooks: K that is kept of codes.
    Returns:
        the frames as tensors.
    Raises:
        ValueError: of another number of clips, no frame, another shape or type of number, or codes that no codebook
            has.
    """
    frames = [torch.as_tensor(clip) for clip in frames]
    if len(frames) != num_clips:
        raise ValueError(
            f"The frame encoder ({name_encoder(encoder)}) gave frames of {len(frames)} clips for "
            f"{num_clips}; expected those of each."
        )
    is_codes = encoder.kind == "codes"
    width = num_codebooks if is_codes else encoder.frame_dim
    for clip in frames:
        has_width = clip.dim() == 2 and (clip.shape[1] >= width if is_codes else clip.shape[1] == width)
        if not has_width or not len(clip) or is_codes == clip.is_floating_point():
            raise ValueError(
                f"The frame encoder ({name_encoder(encoder)}) gave {clip.dtype} of shape {tuple(clip.shape)} for a "
                f"clip; expected {'whole numbers' if is_codes else 'floats'} (T, {width}) with a frame at least."
            )
        if is_codes and (clip.min() < 0 or clip.max() >= encoder.codebook_size):
            raise ValueError(
                f"The frame encoder ({name_encoder(encoder)}) gave codes from {clip.min()} to {clip.max()}; expected 0 "
                f"to {encoder.codebook_size - 1}, below its `codebook_size`."
            )
    return frames


def check_clap_encoder(feature_extractor, clap) -> None:
    """Refuse log-mel windows that the CLAP tower cannot read for its vector, or reads as something else.

    Raises:
        ValueError: they differ in mel bins, in length, or in the fusion of long clips.
    """
    check_mel_windows(feature_extractor, clap)
    if feature_extractor.long_clips == "fusion" and not clap.config.enable_fusion:
        raise ValueError(
            'The feature extractor prepares long clips for fusion (`long_clips` "fusion"), and this CLAP was trained '
            'without; set `long_clips` "middle", or use a CLAP with fusion.'
        )


def check_clap_text(clap, clap_text) -> None:
    """Refuse a text tower of another CLAP than the audio tower's, as far as sizes tell.

    Raises:
        ValueError: their vectors differ in width.
    """
    if clap.embedding_dim != clap_text.embedding_dim:
        raise ValueError(
            f"CLAP's audio tower gives vectors of {clap.embedding_dim} numbers and its text tower of "
            f"{clap_text.embedding_dim} (`projection_dim`); use the two towers of one CLAP."
        )


def check_mel_windows(feature_extractor, clap) -> None:
    """Refuse log-mel windows that the CLAP tower cannot read.

    Raises:
        ValueError: they differ in mel bins or in length.
    """
    bins = (feature_extractor.num_mel_bins, clap.config.num_mel_bins)
    if bins[0] != bins[1]:
        raise ValueError(f"The feature extractor makes {bins[0]} mel bins (`num_mel_bins`), and CLAP reads {bins[1]}.")
    longest = clap.config.spec_size * (clap.config.spec_size // clap.config.num_mel_bins)
    if feature_extractor.window_mel_frames > longest:
        raise ValueError(
            f"The feature extractor's windows have {feature_extractor.window_mel_frames} mel frames (`clap_window_s`, "
            f"`hop_length`), and CLAP reads {longest} at most."
        )


def check_captioner(config: EnClapConfig, processor) -> None:
    """Refuse a captioner that was not trained on what this processor gives.

    Args:
        config: of the captioner.
        processor: [`EnClapProcessor`].
    Raises:
        ValueError: which sizes differ.
    """
    encoder, clap = processor.frame_encoder, processor.clap_encoder
    if encoder.kind != config.frame_kind:
        raise ValueError(
            f"The captioner reads {config.frame_kind} (`frame_kind`), and the processor's frame encoder "
            f"({name_encoder(encoder)}) gives {encoder.kind}; use the processor that belongs to the captioner."
        )
    is_codes = encoder.kind == "codes"
    pairs = {
        "`frame_encoder_type`": (
            config.frame_encoder_type,
            processor.frame_encoder_type or getattr(encoder, "frame_encoder_type", None),
        ),
        "`frame_rate`": (config.frame_rate, encoder.frame_rate),
        "`num_codebooks`": (config.num_codebooks, processor.num_codebooks) if is_codes else (None, None),
        "codes in a codebook (`codec_vocab_size`)": (config.codec_vocab_size, encoder.codebook_size)
        if is_codes
        else (None, None),
        "`frame_dim`": (None, None) if is_codes else (config.frame_dim, encoder.frame_dim),
        "width of the CLAP vector (`clap_dim`, 0 for none)": (
            config.clap_dim,
            0 if clap is None else clap.embedding_dim,
        ),
    }
    for what, (wanted, given) in pairs.items():
        if wanted is not None and given is not None and not is_same(wanted, given):
            raise ValueError(
                f"Captioner and processor differ in {what}: {wanted} and {given}; use the processor that belongs to "
                "the captioner."
            )
    kept = processor.feature_extractor.max_codec_frames
    if kept is not None and kept > config.max_codec_frames:
        raise ValueError(
            f"The processor keeps {kept} frames of a clip (`max_codec_frames`), and the captioner holds "
            f"{config.max_codec_frames} (`max_position_embeddings` less 3); set the first to that."
        )


def is_same(wanted, given) -> bool:
    """Whether two fields agree; rates up to the rounding of what was written down."""
    if isinstance(wanted, float) or isinstance(given, float):
        return abs(wanted - given) <= 1e-6 * abs(wanted)
    return wanted == given


def name_encoder(encoder) -> str:
    """A frame encoder, for a message."""
    return getattr(encoder, "frame_encoder_type", "") or type(encoder).__name__
