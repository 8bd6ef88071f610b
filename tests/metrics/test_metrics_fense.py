"""FENSE and CLAP similarity with tiny random networks made here; what is checked is how they are used."""

import json

import numpy as np
import pytest
import torch
import transformers

from enclap_hf.metrics import AudioCaptioningMetrics, fense
from enclap_hf.metrics.clap_similarity import compute_clap_similarity
from enclap_hf.metrics.java_runtime import MetricUnavailableError

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *["a", "the", "dog", "cat", "rain", "barks", "falls", "and", ",", ".", "##s"],
]
CANDIDATES = ["A dog barks.", "rain falls, and rain falls and", "the cat"]
SENTENCES = ["a dog", "rain falls", "the the the", "cat and", "dog barks dog", "a", "rain and rain and"]
REFERENCES = [["a dog barks", "the dog"], ["rain"], ["a cat", "the cat", "cats"]]


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    """A BERT of width 32 with its tokenizer."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def detector_file(encoder_folder, tmp_path_factory):
    """A checkpoint as FENSE's authors release them, which finds an error in about half of all captions."""
    encoder = transformers.AutoModel.from_pretrained(encoder_folder)
    torch.manual_seed(1)
    state = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    state["encoder.embeddings.position_ids"] = torch.arange(512)[None]
    state["clf.weight"], state["clf.bias"] = torch.randn(6, 32) * 1000, torch.zeros(6)
    # A random BERT gives every sentence nearly the same vector: the bias puts the threshold among them.
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder_folder)
    with torch.no_grad():
        first = [encoder.eval()(torch.tensor([tokenizer.encode(text)])).last_hidden_state[0, 0] for text in SENTENCES]
    state["clf.bias"][-1] = 2.2 - (torch.stack(first) @ state["clf.weight"][-1]).median()
    path = tmp_path_factory.mktemp("detector") / "detector.ckpt"
    torch.save({"model_type": encoder_folder, "num_classes": 6, "state_dict": state}, path)
    return str(path)


def embed_alone(encoder_folder: str, sentence: str) -> torch.Tensor:
    """One sentence without padding: the mean of all its hidden states, in a second way of computing."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder_folder)
    encoder = transformers.AutoModel.from_pretrained(encoder_folder).eval()
    with torch.no_grad():
        vector = encoder(torch.tensor([tokenizer.encode(sentence)])).last_hidden_state[0].mean(0)
    return vector / vector.norm()


def test_similarity_is_the_mean_cosine_of_sentence_embeddings(encoder_folder):
    corpus, per_clip = fense.compute_sbert_similarity(CANDIDATES, REFERENCES, encoder_folder)
    expected = []
    for candidate, references in zip(CANDIDATES, REFERENCES, strict=True):
        vector = embed_alone(encoder_folder, candidate)
        expected.append(np.mean([float(vector @ embed_alone(encoder_folder, text)) for text in references]))
    assert per_clip == pytest.approx(expected, abs=1e-5)  # padding sums float32 in another order
    assert corpus == pytest.approx(np.mean(expected), abs=1e-5)
    assert len({round(score, 3) for score in per_clip}) == 3, "all the same would prove nothing"


def test_an_error_is_the_last_class_above_nine_tenths(encoder_folder, detector_file):
    state = torch.load(detector_file, weights_only=True)["state_dict"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder_folder)
    encoder = transformers.AutoModel.from_pretrained(encoder_folder).eval()
    sentences = ["a dog", "Rain falls,", *SENTENCES[2:]]
    expected = []
    for sentence in sentences:
        ids = tokenizer.encode(sentence.lower().replace(",", ""))  # punctuation is taken out first
        with torch.no_grad():
            first = encoder(torch.tensor([ids])).last_hidden_state[0, 0]
        expected.append(float(torch.sigmoid(state["clf.weight"][-1] @ first + state["clf.bias"][-1]) > 0.9))
    rate, errors = fense.compute_fluency_errors(sentences, detector_file)
    assert errors == expected and rate == np.mean(expected)
    assert 0 < rate < 1, "all the same would prove nothing"


def test_fense_and_spider_fl_cut_the_scores_of_errors():
    assert fense.penalise_errors([0.5, 0.5], [0.0, 1.0]) == (pytest.approx(0.275), [0.5, pytest.approx(0.05)])


def test_fense_through_the_class(encoder_folder, detector_file):
    metrics = AudioCaptioningMetrics(
        ["sbert_similarity", "fluency_error_rate", "fense"],
        sentence_encoder=encoder_folder,
        error_detector=detector_file,
    )
    scores = metrics.compute(CANDIDATES, REFERENCES)
    parts = zip(scores.per_clip["sbert_similarity"], scores.per_clip["fluency_error_rate"], strict=True)
    assert scores.per_clip["fense"] == pytest.approx([s * (1 - 0.9 * e) for s, e in parts])
    assert {"torch", "transformers"} <= set(scores["versions"])
    json.dumps(scores)


def test_an_empty_and_a_very_long_caption_have_scores(encoder_folder, detector_file):
    candidates, references = ["", "dog " * 10_000], [["a dog"], ["a dog"]]
    assert np.isfinite(fense.compute_sbert_similarity(candidates, references, encoder_folder)[1]).all()
    assert np.isfinite(fense.compute_fluency_errors(candidates, detector_file)[1]).all()


def test_missing_weights_are_named(tmp_path, monkeypatch, encoder_folder):
    with pytest.raises(MetricUnavailableError, match="neither a folder with weights nor reachable"):
        fense.compute_sbert_similarity(["a"], [["a"]], str(tmp_path / "nothing"))
    with pytest.raises(
        MetricUnavailableError, match="not a fluency error detector; expected a file, or one of echecker"
    ):
        fense.compute_fluency_errors(["a"], "nothing")
    (tmp_path / "spoiled.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(MetricUnavailableError, match="cannot be read"):
        fense.compute_fluency_errors(["a"], str(tmp_path / "spoiled.ckpt"))
    monkeypatch.setenv("ENCLAP_CACHE", str(tmp_path))
    monkeypatch.setattr(fense, "_RELEASE", (tmp_path / "release").as_uri() + "/")
    with pytest.raises(MetricUnavailableError, match="cannot be downloaded .*; put the file at"):
        fense.compute_fluency_errors(["a"], "echecker_clotho_audiocaps_tiny")


def test_a_download_with_another_checksum_is_refused(tmp_path, monkeypatch):
    release = tmp_path / "release"
    release.mkdir()
    (release / "echecker_clotho_audiocaps_tiny.ckpt").write_bytes(b"something else")
    monkeypatch.setenv("ENCLAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fense, "_RELEASE", release.as_uri() + "/")
    with pytest.raises(MetricUnavailableError, match="checksum"):
        fense.compute_fluency_errors(["a"], "echecker_clotho_audiocaps_tiny")
    assert list((tmp_path / "cache" / "fense").iterdir()) == []


# --- CLAP similarity ---


def test_clap_similarity_of_functions_is_the_cosine():
    audio = np.array([[1.0, 0.0], [1.0, 1.0]])
    texts = {"a dog": [2.0, 0.0], "rain": [1.0, 0.0]}
    scores = AudioCaptioningMetrics(
        "clap_similarity", clap=lambda captions: [texts[text] for text in captions]
    ).compute(list(texts), [["x"], ["x"]], audio_embeddings=audio)
    assert scores.per_clip["clap_similarity"] == pytest.approx([1.0, 0.5**0.5])


def test_clap_similarity_without_audio_is_reported_as_missing():
    scores = AudioCaptioningMetrics("clap_similarity").compute(["a"], [["a"]])
    assert "audio_embeddings" in scores.missing["clap_similarity"]


@pytest.mark.parametrize(
    ("audio_embeddings", "message"),
    [(np.ones((1, 2)), "1 audio clips and 2 captions"), (np.ones((2, 3)), "same shape")],
)
def test_clap_embeddings_that_do_not_fit_are_refused(audio_embeddings, message):
    with pytest.raises(ValueError, match=message):
        compute_clap_similarity(["a", "b"], lambda captions: np.ones((2, 2)), audio_embeddings=audio_embeddings)


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory):
    """A ClapModel of the smallest size with its processor."""
    folder = tmp_path_factory.mktemp("clap")
    torch.manual_seed(0)
    audio = transformers.ClapAudioConfig(
        spec_size=64,
        num_mel_bins=16,
        patch_size=4,
        patch_stride=[4, 4],
        window_size=4,
        patch_embeds_hidden_size=16,
        hidden_size=32,
        depths=[1, 1],
        num_attention_heads=[2, 2],
        num_classes=4,
        projection_dim=16,
        enable_fusion=True,
        fusion_type="aff_2d",
    )
    text = transformers.ClapTextConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=80,
        projection_dim=16,
    )
    config = transformers.ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=16)
    transformers.ClapModel(config).save_pretrained(folder)
    letters = sorted({chr(code) for code in range(97, 123)} | {"Ġ"})
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.RobertaTokenizerFast(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    extractor = transformers.ClapFeatureExtractor(
        feature_size=16, sampling_rate=16000, hop_length=640, fft_window_size=1024
    )
    transformers.ClapProcessor(extractor, tokenizer).save_pretrained(folder)
    return str(folder)


def test_clap_similarity_of_a_model_is_the_same_every_time(clap_folder):
    """The stock extractor marks a random short clip as long and crops long ones at random."""
    rng = np.random.default_rng(0)
    audio = [rng.standard_normal(16000).astype(np.float32), rng.standard_normal(16000 * 12).astype(np.float32)]
    metrics = AudioCaptioningMetrics("clap_similarity", clap=clap_folder, strict=True)
    runs = [metrics.compute(["a dog", "rain"], [["x"], ["x"]], audio=audio, sampling_rate=16000) for _ in range(3)]
    assert runs[0].per_clip == runs[1].per_clip == runs[2].per_clip
    assert all(-1 <= score <= 1 for score in runs[0].per_clip["clap_similarity"])
    with pytest.raises(ValueError, match="44100 Hz; expected 16000 Hz"):
        metrics.compute(["a", "b"], [["x"], ["x"]], audio=audio, sampling_rate=44100)
