"""What runs in a peer's Python, as far as it can be run here; most needs PyTorch."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.media import write_video
from swaptalk_jax.benchmarks.peers.theirs import main, stand_ins


@pytest.fixture
def scripts(monkeypatch):
    """A function that imports a file of theirs/ by its bare name, as the scripts do."""
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(Path(main.__file__).parent)
    known = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - known:
        if name in ("settings", "chain", "windows", "vqgan"):
            del sys.modules[name]


def test_inert_modules_stand_in_for_missing_libraries_alone(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    stand_ins.allow("a_library_of_nobody", "numpy")
    lists = importlib.import_module("a_library_of_nobody.lists")
    assert isinstance(lists.ListConfig, type) and lists.ListConfig is lists.ListConfig
    assert importlib.import_module("numpy") is np
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("another_library_of_nobody")
    for name in ("a_library_of_nobody", "a_library_of_nobody.lists"):
        del sys.modules[name]


def test_inswapper_has_the_public_files_size(scripts):
    import torch

    with torch.device("meta"):
        network = scripts("chain").Inswapper()
    values = sum(p.numel() for p in network.parameters()) + 512 * 512  # the file's emap, too
    assert 4 * values == pytest.approx(554_253_681, rel=1e-3)  # bytes of inswapper_128.onnx


def test_a_video_gives_two_windows_and_a_spectrogram(scripts, tmp_path):
    import cv2

    frames = [np.full((32, 32, 3), 20 * k, np.uint8) for k in range(12)]
    write_video.write_video(tmp_path / "a.mp4", frames, 25)
    videos = scripts("windows").Videos([str(tmp_path / "a.mp4")], 16, cv2)
    pictures, sound = videos[0]
    assert pictures.shape == (6, 5, 16, 16) and sound.shape == (80, 16)
    steps = pictures.numpy()[0].mean((1, 2))
    np.testing.assert_allclose(np.diff(steps), 20 / 255, atol=0.03)  # consecutive frames


def test_a_checkout_of_the_least_vqgan_is_stepped(scripts, tmp_path, monkeypatch):
    package = tmp_path / "taming" / "modules"
    for part, text in {
        "diffusionmodules/model.py": (
            "import torch\n"
            "print('what a checkout prints is no answer')\n"
            "class Encoder(torch.nn.Conv2d):\n"
            "    def __init__(self, ch, z_channels, resolution, **more):\n"
            "        super().__init__(3, z_channels, 4, 4)\n"
            "class Decoder(torch.nn.ConvTranspose2d):\n"
            "    def __init__(self, ch, z_channels, resolution, **more):\n"
            "        super().__init__(z_channels, 3, 4, 4)\n"
        ),
        "vqvae/quantize.py": (
            "import torch\n"
            "class VectorQuantizer2(torch.nn.Module):\n"
            "    def __init__(self, n_e, e_dim, beta):\n        super().__init__()\n"
            "    def forward(self, z):\n        return z, z.square().mean(), None\n"
        ),
    }.items():
        (package / part).parent.mkdir(parents=True)
        (package / part).write_text(text)
    model = dict(width=4, embed_dim=6, multipliers=[1, 1, 1], blocks=1, attention=True, codes=8)
    monkeypatch.syspath_prepend(tmp_path)
    told = []
    for task in ("vqgan_forward", "vqgan_step"):
        main.run(task, {"model": model, "size": 8, "count": 2}, ["turn"], told.append)
    assert [sorted(answer) for answer in told] == [["ready"], ["seconds"]] * 2
    assert told[0]["ready"]["parameters"] == 3 * 6 * 16 * 2 + 6 + 3 + 2 * (36 + 6)
    json.dumps(told)
    for name in [name for name in sys.modules if name.partition(".")[0] == "taming"]:
        del sys.modules[name]
