"""Batches hold what the clips held, and hide other codes in every batch, worker and process."""

import numpy as np
import pytest
import torch

from conftest import build_tokenizer
from enclap_hf import DataCollatorForEnClap
from enclap_hf.training.data_collator import choose_spans


def make_clips(lengths, num_codebooks=4, dtype=np.uint16) -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        {
            "audio_codes": rng.integers(32, size=(length, num_codebooks)).astype(dtype),
            "clap_embedding": rng.standard_normal(24),
            "labels": [0, *range(5, 6 + i), 2],
        }
        for i, length in enumerate(lengths)
    ]


def make_collator(seed=0, **fields) -> DataCollatorForEnClap:
    return DataCollatorForEnClap(codec_vocab_size=32, generator=torch.Generator().manual_seed(seed), **fields)


def hidden(batch: dict) -> torch.Tensor:
    return batch["mcm_targets"] != -100


def test_hidden_codes_are_the_targets_and_the_others_stay():
    clips = make_clips([40, 7, 1])
    batch = make_collator()(clips)
    assert batch["attention_mask"].sum(1).tolist() == [40, 7, 1]
    for i, clip in enumerate(clips):
        length = len(clip["audio_codes"])
        codes, targets = batch["audio_codes"][i, :length], batch["mcm_targets"][i, :length]
        original = torch.from_numpy(clip["audio_codes"].astype(np.int64))
        assert torch.equal(torch.where(targets != -100, targets, codes), original)
        assert torch.equal(codes, original), "the model hides codes, and only in training"
        assert ((targets == -100) | (targets == codes)).all() and ((targets != -100).any() or length < 40)
        assert (batch["audio_codes"][i, length:] == 32).all() and (batch["mcm_targets"][i, length:] == -100).all()
    assert {name: value.dtype for name, value in batch.items()} == {
        "audio_codes": torch.int64,
        "attention_mask": torch.int64,
        "clap_embedding": torch.float32,
        "labels": torch.int64,
        "mcm_targets": torch.int64,
    }


def test_labels_are_padded_with_the_ignored_id():
    labels = make_collator()(make_clips([5, 5, 5]))["labels"]
    assert labels.tolist() == [[0, 5, 2, -100, -100], [0, 5, 6, 2, -100], [0, 5, 6, 7, 2]]


def test_captions_are_tokenized_where_clips_carry_text():
    clips = make_clips([5, 5])
    for clip, caption in zip(clips, ("rain falls", "a dog barks twice"), strict=True):
        del clip["labels"]
        clip["caption"] = caption
    tokenizer = build_tokenizer()
    labels = make_collator(tokenizer=tokenizer)(clips)["labels"]
    for row, clip in zip(labels, clips, strict=True):
        assert row[row != -100].tolist() == tokenizer(clip["caption"])["input_ids"]
    with pytest.raises(ValueError, match="tokenizer"):
        make_collator()(clips)


def test_clips_without_labels_or_embedding_give_a_batch_without():
    clips = [{"audio_codes": clip["audio_codes"]} for clip in make_clips([5, 9])]
    assert set(make_collator()(clips)) == {"audio_codes", "attention_mask", "mcm_targets"}


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int64, np.uint8])
def test_codes_of_any_integer_type_give_the_same_batch(dtype):
    expected = make_collator()(make_clips([30, 4]))
    forms = (
        make_clips([30, 4], dtype=dtype),
        [{**clip, "audio_codes": clip["audio_codes"].tolist()} for clip in make_clips([30, 4])],
        [{**clip, "audio_codes": torch.tensor(clip["audio_codes"].astype(int))} for clip in make_clips([30, 4])],
    )
    for clips in forms:
        torch.testing.assert_close(make_collator()(clips), expected)


def test_clips_stay_as_they_were():
    clips = make_clips([30])
    before = clips[0]["audio_codes"].copy()
    make_collator()(clips)
    tensors = [{"audio_codes": torch.from_numpy(before.astype(np.int64))}]
    make_collator()(tensors)
    assert (clips[0]["audio_codes"] == before).all() and (tensors[0]["audio_codes"].numpy() == before).all()


# Randomness


def test_every_batch_hides_other_codes_and_a_seed_repeats_them():
    """The published code drew the hidden codes once and kept them for all epochs."""
    clips = make_clips([200])
    first, second = make_collator(1), make_collator(1)
    steps = [hidden(first(clips)) for _ in range(3)]
    again = [hidden(second(clips)) for _ in range(3)]
    assert all(map(torch.equal, steps, again))
    assert not torch.equal(steps[0], steps[1]) and not torch.equal(steps[1], steps[2])
    assert not torch.equal(steps[0], hidden(make_collator(2)(clips)))


def test_without_a_generator_torchs_seed_decides():
    collator, clips = DataCollatorForEnClap(codec_vocab_size=32), make_clips([200])

    def draw(seed):
        torch.manual_seed(seed)
        return hidden(collator(clips))

    assert torch.equal(draw(3), draw(3)) and not torch.equal(draw(3), draw(4))


def test_processes_with_one_seed_hide_other_codes(monkeypatch):
    drawn = []
    for rank in ("0", "1", "2"):
        monkeypatch.setenv("RANK", rank)
        drawn.append(hidden(make_collator(1)(make_clips([200]))))
    assert not any(torch.equal(drawn[i], drawn[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("generator", [None, torch.Generator().manual_seed(0)])
def test_workers_and_epochs_hide_other_codes_and_a_seed_repeats_them(generator):
    clip = make_clips([200])[0]

    def run(seed):
        torch.manual_seed(seed)
        collator = DataCollatorForEnClap(codec_vocab_size=32, generator=generator)
        loader = torch.utils.data.DataLoader([clip] * 4, batch_size=1, num_workers=2, collate_fn=collator)
        return [tuple(hidden(batch).flatten().tolist()) for _ in range(2) for batch in loader]

    drawn = run(0)
    assert len(set(drawn)) == 8, "each batch of each worker and epoch differs"
    assert run(0) == drawn and not set(run(1)) & set(drawn)


# Spans


def slow_spans(num_frames, num_codebooks, probability, span, rng):
    """Span masking as the paper states it, frame by frame."""
    span = min(span, num_frames)
    count = min(int(probability * num_frames / span + rng.random()), num_frames // span)
    rows = []
    for _ in range(num_codebooks):
        starts = set(rng.choice(num_frames - span + 1, size=count, replace=False).tolist())
        rows.append([any(start <= t < start + span for start in starts) for t in range(num_frames)])
    return np.array(rows).T


@pytest.mark.parametrize("num_frames", [1, 2, 9, 10, 11, 40, 750])
def test_spans_equal_a_slow_computation(num_frames):
    for seed in range(20):
        ours = choose_spans(num_frames, 3, 0.15, 10, np.random.default_rng(seed))
        assert ours.shape == (num_frames, 3)
        assert (ours == slow_spans(num_frames, 3, 0.15, 10, np.random.default_rng(seed))).all()


def test_ten_seconds_hide_the_published_share():
    """0.141 on average at 750 frames: 15 % wanted, and spans overlap."""
    rng = np.random.default_rng(0)
    masks = np.stack([choose_spans(750, 16, 0.15, 10, rng) for _ in range(200)])
    assert masks.mean() == pytest.approx(0.141, abs=0.002)
    assert masks.mean((0, 1)).std() < 0.01, "each codebook alike"
    assert not (masks[..., 0] == masks[..., 1]).all((1,)).any(), "codebooks are drawn independently"
    # 3,200 draws a frame: 0.04 is over 4 standard errors of the frames' largest difference
    assert (np.abs(masks[:, 20:-20].mean((0, 2)) - 0.143) < 0.04).all(), "each frame alike"


@pytest.mark.parametrize("num_frames", [1, 5, 40])
def test_short_clips_hide_the_wanted_share_on_average(num_frames):
    """The published code failed on them, always or at random."""
    rng = np.random.default_rng(0)
    share = np.mean([choose_spans(num_frames, 2, 0.15, 10, rng).mean() for _ in range(4000)])
    assert share == pytest.approx(0.15, abs=0.02)  # over 4 standard errors


def test_masking_can_be_off_or_complete():
    assert "mcm_targets" not in make_collator(mcm_probability=0.0)(make_clips([50]))
    assert choose_spans(50, 2, 1.0, 1, np.random.default_rng(0)).all()
    assert not choose_spans(50, 2, 0.0, 10, np.random.default_rng(0)).any()


# Crops


def ordered_clip(num_frames: int) -> dict:
    return {"audio_codes": np.repeat(np.arange(num_frames)[:, None], 2, 1)}


def test_training_crops_at_every_place_and_evaluation_at_the_start():
    collator = DataCollatorForEnClap(codec_vocab_size=1024, max_codec_frames=20, mcm_probability=0.0)
    starts = set()
    for _ in range(200):
        codes = collator([ordered_clip(25)])["audio_codes"][0, :, 0]
        assert torch.equal(codes, torch.arange(20) + codes[0])
        starts.add(int(codes[0]))
    assert starts == set(range(6))
    batch = collator.for_evaluation()([ordered_clip(25), ordered_clip(3)])
    assert torch.equal(batch["audio_codes"][0, :, 0], torch.arange(20))
    assert batch["attention_mask"].sum(1).tolist() == [20, 3]


def test_evaluation_hides_nothing_and_draws_nothing():
    collator = make_collator().for_evaluation()
    clips, state = make_clips([30, 4]), torch.get_rng_state()
    before = collator.generator.get_state()
    batch = collator(clips)
    assert set(batch) == {"audio_codes", "attention_mask", "clap_embedding", "labels"}
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(collator.generator.get_state(), before)
    assert (batch["audio_codes"][0].numpy() == clips[0]["audio_codes"]).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mcm_probability": 1.1}, "masking probability of 1.1"),
        ({"mcm_probability": -0.1}, "masking probability"),
        ({"mcm_span": 0}, "span of 0"),
        ({"max_codec_frames": 0}, "`max_codec_frames`=0"),
    ],
)
def test_arguments_out_of_range_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        make_collator(**fields)


@pytest.mark.parametrize("shape", [(0, 4), (12,), (2, 12, 4), (4, 0)])
def test_codes_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="expected \\(T, K\\)"):
        make_collator()([{"audio_codes": np.zeros(shape, dtype=int)}])
