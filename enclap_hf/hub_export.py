"""Writes a repository that is ready for the Hub: model, processor with both encoders, and the code to load it.

The repository loads with the package installed, and without it through `trust_remote_code=True`.
"""

import json
import os
import shutil

# Shipped flat beside the weights; each imports the others as `from .x import y`.
CODE_FILES = (
    *("configuration_enclap.py", "modeling_enclap.py", "generation_enclap.py", "losses_enclap.py"),
    *("onednn_linear.py", "audio_loading.py", "feature_extraction_enclap.py", "audio_encoders.py"),
    *("data_collator.py", "processing_enclap.py", "pipeline.py"),
)
REQUIREMENTS = ("torch", "transformers>=5.0,<6", "numpy", "soundfile", "soxr")
MODEL_AUTO_MAP = {
    "AutoConfig": "configuration_enclap.EnClapConfig",
    "AutoModel": "modeling_enclap.EnClapModel",
    "AutoModelForSeq2SeqLM": "modeling_enclap.EnClapForConditionalGeneration",
    "AutoModelForSpeechSeq2Seq": "modeling_enclap.EnClapForConditionalGeneration",
}
PROCESSOR_AUTO_MAP = {
    "AutoProcessor": "processing_enclap.EnClapProcessor",
    "AutoFeatureExtractor": "feature_extraction_enclap.EnClapFeatureExtractor",
}
CUSTOM_PIPELINES = {
    "audio-captioning": {
        "impl": "pipeline.AudioCaptioningPipeline",
        "pt": ["AutoModelForSeq2SeqLM"],
        "type": "audio",
    }
}


def save_repository(model, processor, save_directory: str) -> None:
    """Write everything that a stranger needs to caption with this model.

    Args:
        model: [`EnClapForConditionalGeneration`].
        processor: [`EnClapProcessor`]; its two encoders are written too.
        save_directory: made when missing.
    """
    model.save_pretrained(save_directory)
    processor.save_pretrained(save_directory, include_encoders=True)
    add_remote_code(save_directory)


def add_remote_code(save_directory: str) -> None:
    """Add the code files, and the entries of config.json and processor_config.json that point to them."""
    source = os.path.dirname(os.path.abspath(__file__))
    for name in CODE_FILES:
        shutil.copyfile(os.path.join(source, name), os.path.join(save_directory, name))
    with open(os.path.join(save_directory, "requirements.txt"), "w", encoding="utf-8") as file:
        file.writelines(f"{requirement}\n" for requirement in REQUIREMENTS)
    update_json(
        os.path.join(save_directory, "config.json"),
        {"auto_map": MODEL_AUTO_MAP, "custom_pipelines": CUSTOM_PIPELINES},
    )
    path = os.path.join(save_directory, "processor_config.json")
    update_json(path, {"auto_map": PROCESSOR_AUTO_MAP})
    with open(path, encoding="utf-8") as file:
        feature_extractor = json.load(file)["feature_extractor"]
    update_json(path, {"feature_extractor": {**feature_extractor, "auto_map": PROCESSOR_AUTO_MAP}})


def update_json(path: str, entries: dict) -> None:
    """Set top-level entries of a JSON file."""
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    content.update(entries)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, sort_keys=True)
        file.write("\n")
