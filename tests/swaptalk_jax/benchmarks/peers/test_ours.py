"""Our side of the comparisons: every row's work runs, at the least sizes, in the shapes it says."""

import jax
import numpy as np
import pytest
import random_bundle

from data_pipelines.loading import views
from data_pipelines.synthetic import random_records
from swaptalk_jax.benchmarks.peers import media, ours, rows

VQGAN = {"model": random_bundle.MODEL["vqgan"], "size": 16, "count": 2}
UNET = {
    "model": random_bundle.MODEL["unet"],
    "grid": (4, 8),
    "tokens": 4,
    "audio_width": 6,
    "count": 2,
}


@pytest.mark.parametrize(
    ("made", "fields"), [(ours.vqgan, VQGAN), (ours.unet, UNET)], ids=["vqgan", "unet"]
)
def test_a_step_moves_all_weights_and_a_forward_pass_is_finite(made, fields, monkeypatch):
    seen = []
    jit = ours.backend.jit

    def watched(function, **options):
        compiled = jit(function, **options)
        return lambda *inputs: seen.append(jax.tree.map(np.array, compiled(*inputs))) or seen[-1]

    monkeypatch.setattr(ours.backend, "jit", watched)
    _, work, facts = ours.forward(made, fields)
    work()
    result = seen[0][0] if made is ours.vqgan else seen[0]
    assert np.isfinite(result).all() and len(result) == fields["count"]
    settle, work, stepping = ours.step(made, fields)
    assert stepping == facts and facts["parameters"] > 500
    settle()
    work()
    (before, _), (after, metrics) = seen[1:]
    assert int(after.step) == 2 and np.isfinite(metrics["loss"])
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before.params, after.params)
    assert np.mean(jax.tree.leaves(moved)) > 0.8


def test_a_clip_goes_from_frames_to_frames():
    fields = rows.chain_fields("micro", 2)
    assert fields["audio_width"] == 160 and fields["warp"] and fields["quantize"]
    names = ("vqgan", "swap", "warp", "unet")
    fields |= {"model": {name: random_bundle.MODEL[name] for name in names}}
    _, work, facts = ours.chain(fields | {"size": random_bundle.SIZE})
    assert work().shape == (2, 16, 16, 3) and facts["parameters"] > 1000


def test_the_papers_clip_follows_the_papers_rules():
    fields = rows.chain_fields("paper", 1)
    assert not fields["warp"] and not fields["quantize"] and fields["size"] == 512


def test_both_loaders_find_what_they_read(tmp_path, monkeypatch):
    monkeypatch.setattr(media, "CLIPS", 2)
    monkeypatch.setattr(media, "FRAMES", 6)
    monkeypatch.setattr(media, "SIZE", 32)
    media.write(tmp_path, codes_size=64)
    names = (tmp_path / "media" / "filelists" / "train.txt").read_text().split()
    assert names == ["clip0", "clip1"]
    for name in names:
        clip = tmp_path / "media" / name
        pictures = {path.name for path in clip.glob("*.jpg")}
        assert pictures == {f"{k}.jpg" for k in range(6)} and (clip / "audio.wav").stat().st_size
        assert clip.with_suffix(".mp4").stat().st_size
    kept = views.KEEP_BYTES
    fields = {"records": str(tmp_path / "records"), "batch": 2, "batches": 2}
    settle, work, _ = ours.windows(fields)
    settle()
    work()
    assert views.KEEP_BYTES == kept
    assert random_records.FRAMES > rows.media.FRAMES
