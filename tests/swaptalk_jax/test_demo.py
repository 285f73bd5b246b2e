"""`swaptalk demo`: two drawn people, a marked clip of both."""

import types

import av
import random_bundle
from PIL import Image

from data_pipelines.media import read_video
from swaptalk_jax import demo
from swaptalk_jax.weights import bundle


def test_the_bundle_of_the_package_is_small_and_knows_drawn_people_alone():
    params, config = bundle.load(demo.BUNDLE)
    assert set(params) == {"vqgan", "swap", "warp", "unet"} == set(config["model"])
    assert config["faces"] == bundle.DRAWN and config["image_size"] == 128
    assert sum(path.stat().st_size for path in demo.BUNDLE.iterdir()) < 15e6
    assert (demo.BUNDLE.parents[1] / "docs" / "demo.gif").stat().st_size < 1.5e6


def test_the_demo_draws_two_people_and_shows_them_beside_the_result(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "FRAMES", 6)
    monkeypatch.setattr(demo, "SIDE", 96)
    values = types.SimpleNamespace(out=tmp_path / "d", bundle=random_bundle.folder(), seed=3)
    demo.main(values)
    told = capsys.readouterr().out
    for name, width in (("result", 96), ("side_by_side", 3 * 96)):
        path = tmp_path / "d" / f"{name}.mp4"
        assert str(path) in told
        frames = list(read_video.read_frames(path))
        assert len(frames) == 6 and frames[0].shape == (96, width, 3)
        with av.open(path) as file:
            assert "AI-generated" in file.metadata["comment"] and file.streams.audio
    with Image.open(tmp_path / "d" / "side_by_side.gif") as loop:
        assert loop.n_frames == 3 and loop.size == (180, 60)
        assert b"AI-generated" in loop.info["comment"]
    result = next(read_video.read_frames(tmp_path / "d" / "result.mp4"))
    beside = next(read_video.read_frames(tmp_path / "d" / "side_by_side.mp4"))
    assert abs(beside[:, 192:].astype(int) - result).mean() < 4
