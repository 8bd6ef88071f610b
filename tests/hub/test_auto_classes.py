"""The Auto classes and `pipeline` know EnCLAP, whenever the package was imported, and importing it stays light."""

import subprocess
import sys

import pytest
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    AutoTokenizer,
)

import enclap_hf
from conftest import build_config, build_model, build_processor


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("repository"))
    build_model().save_pretrained(folder)
    build_processor().save_pretrained(folder)
    return folder


def test_auto_classes_load_their_part_of_a_repository(repository):
    for auto, expected in (
        (AutoConfig, enclap_hf.EnClapConfig),
        (AutoModel, enclap_hf.EnClapModel),
        (AutoModelForSeq2SeqLM, enclap_hf.EnClapForConditionalGeneration),
        (AutoModelForSpeechSeq2Seq, enclap_hf.EnClapForConditionalGeneration),
        (AutoProcessor, enclap_hf.EnClapProcessor),
        (AutoFeatureExtractor, enclap_hf.EnClapFeatureExtractor),
    ):
        assert type(auto.from_pretrained(repository)) is expected
    assert len(AutoTokenizer.from_pretrained(repository)) == len(build_processor().tokenizer)


def test_auto_classes_build_from_a_configuration():
    for auto in (AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq):
        assert type(auto.from_config(build_config())) is enclap_hf.EnClapForConditionalGeneration


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


CHECK = """
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoProcessor, AutoFeatureExtractor
from transformers.pipelines import PIPELINE_REGISTRY
assert type(AutoConfig.from_pretrained({repository!r})).__name__ == "EnClapConfig"
assert type(AutoProcessor.from_pretrained({repository!r})).__name__ == "EnClapProcessor"
assert type(AutoModelForSeq2SeqLM.from_pretrained({repository!r})).__name__ == "EnClapForConditionalGeneration"
assert type(AutoFeatureExtractor.from_pretrained({repository!r})).__name__ == "EnClapFeatureExtractor"
assert "audio-captioning" in PIPELINE_REGISTRY.get_supported_tasks()
"""


def test_the_package_may_come_before_transformers(repository):
    run_python("import enclap_hf" + CHECK.format(repository=repository))


def test_the_package_may_come_after_transformers(repository):
    before = (
        "import transformers, transformers.pipelines\nfrom transformers import AutoProcessor, AutoModelForSeq2SeqLM"
    )
    run_python(before + "\nimport enclap_hf" + CHECK.format(repository=repository))


def test_importing_the_package_imports_neither_torch_nor_models():
    heavy = run_python(
        "import enclap_hf, sys; "
        "print([name for name in sys.modules if name == 'torch' or name.startswith('transformers.models')])"
    )
    assert heavy == "[]"


@pytest.mark.parametrize("name", enclap_hf.__all__)
def test_every_public_name_resolves(name):
    assert getattr(enclap_hf, name) is not None
    assert name in dir(enclap_hf)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="EnKlap"):
        _ = enclap_hf.EnKlap
