"""infer, export and the pipeline, with a bundle of random networks: where pixels go, not what."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import random_bundle
from places import ROOT

from data_pipelines.faces import align, landmarks
from data_pipelines.media import audio, read_video, write_video
from data_pipelines.media.opening import MediaError
from data_pipelines.synthetic import sampling
from swaptalk_jax import stages
from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.inference import edit, mark, swaptalk
from swaptalk_jax.weights import store
from swaptalk_jax.weights.bundle import export, load

FPS = Fraction(30000, 1001)
FRAMES, HEIGHT, WIDTH = 34, 75, 101  # odd, so that the encoder has to pad
LONG_GAP = range(12, 25)  # longer than align.MAX_GAP: these frames show no face
SHORT_GAP = 4  # a face that was missed once


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A talking head of odd size at 29.97 fps with exact landmarks, a portrait and some speech."""
    folder = tmp_path_factory.mktemp("inputs")
    clip = sampling.sample_clip(seed=1, identity_index=0, clip_index=0, frames=FRAMES)
    drawn = [sampling.render_frame(clip, i, (HEIGHT, WIDTH)) for i in range(FRAMES)]
    points = np.stack([p for _, p in drawn])
    points[list(LONG_GAP)] = points[SHORT_GAP] = np.nan
    sound = np.random.default_rng(0).normal(0, 0.1, (2 * 44100, 2)).astype(np.float32)
    frames = [image for image, _ in drawn]
    write_odd_clip(folder / "clip.mp4", frames, sound)
    write_video.write_video(folder / "silent.mp4", frames[:8], FPS)
    landmarks.save_landmarks(folder / "clip.landmarks.npz", points)
    landmarks.save_landmarks(folder / "silent.landmarks.npz", points[:8])
    portrait, face = sampling.render(sampling.sample_identity(1, 3), clip.state(0), (HEIGHT, WIDTH))
    cv2.imwrite(str(folder / "face.png"), cv2.cvtColor(portrait, cv2.COLOR_RGB2BGR))
    landmarks.save_landmarks(folder / "face.landmarks.npz", face[None])
    write_video.write_video(folder / "speech.mp4", frames[:1], FPS, (sound[:, 0], 44100))
    return folder


@pytest.fixture(scope="session")
def self_driven(inputs, tmp_path_factory):
    """(Result, path of the output, the inputs' listing before and after) of one run."""
    out = tmp_path_factory.mktemp("out") / "new" / "out.mp4"
    before = sorted(os.listdir(inputs))
    result = run(inputs, out)
    return result, out, before, sorted(os.listdir(inputs))


def run(inputs, out, source="face.png", target="clip.mp4", **kwargs):
    lines = kwargs.pop("lines", [])
    pipe = random_bundle.pipe()
    return edit.infer(pipe, inputs / source, inputs / target, out, report=lines.append, **kwargs)


def test_frames_rate_size_and_length_of_the_sound_are_kept(inputs, self_driven):
    result, out, _, _ = self_driven
    info = read_video.probe(out)
    assert info.fps == FPS and info.frames == FRAMES == result.frames
    assert (read_video.probe(inputs / "clip.mp4").width, info.width) == (WIDTH, WIDTH + 1)
    assert info.height == HEIGHT + 1  # H.264 4:2:0 has even sizes only
    sound, rate = audio.read_audio(out, rate=None, mono=False)
    assert rate == 44100 and sound.shape[1] == 2
    assert abs(len(sound) / rate - float(FRAMES / FPS)) < 0.03  # AAC comes in blocks of 23 ms


def test_the_output_says_that_it_is_generated(self_driven):
    with av.open(str(self_driven[1])) as container:
        assert "AI-generated" in container.metadata["comment"]
        assert container.metadata["title"] == mark.MARK["title"]
        assert "TrainedAlgorithmicMedia" in container.metadata["digital_source_type"]


def test_frames_without_a_face_pass_and_none_is_misplaced(inputs, self_driven):
    result, out, _, _ = self_driven
    assert result.without_face == len(LONG_GAP)
    before, after = (
        list(read_video.read_frames(inputs / "clip.mp4")),
        list(read_video.read_frames(out)),
    )
    points = landmarks.load_landmarks(inputs / "clip.landmarks.npz")
    matrices, points = align.matrices(points, 16), align.steady(points)
    outside = np.ones((FRAMES, HEIGHT, WIDTH), bool)
    inside = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
    for i in range(FRAMES):
        if i not in LONG_GAP:
            white = np.full((16, 16, 3), 255, np.uint8)
            shape = align.face_mask(align.transform(points[i], matrices[i]), 16)
            black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            mask = align.paste(black, white, matrices[i], shape)[..., 0]
            outside[i] = cv2.dilate(mask, np.ones((9, 9))) == 0  # the codec smears
            inside[i] = mask > 200
    change = np.abs(np.stack(before) - np.stack(after)[:, :HEIGHT, :WIDTH].astype(float)).mean(-1)
    assert change[outside].mean() < 2.5 and np.percentile(change[outside], 99) < 12
    swapped = [i for i in range(FRAMES) if i not in LONG_GAP]
    assert SHORT_GAP in swapped  # one missed detection must not flash the old face
    assert all(change[i][inside[i]].mean() > 20 for i in swapped)
    for i in LONG_GAP:  # each passed frame is nearest to its own original
        errors = [
            np.abs(after[i][:HEIGHT, :WIDTH].astype(float) - other).mean() for other in before
        ]
        assert int(np.argmin(errors)) == i


def test_nothing_is_written_beside_the_inputs_nor_left_over(self_driven):
    _, out, before, after = self_driven
    assert before == after
    assert os.listdir(out.parent) == ["out.mp4"]


def test_the_shorter_of_picture_and_sound_decides(inputs, tmp_path):
    rate, frames, lines = 16000, 10, []
    speech = np.random.default_rng(1).normal(0, 0.1, round(frames / FPS * rate) + 50)
    write_wav(tmp_path / "speech.wav", speech, rate)
    out = tmp_path / "out.mp4"
    result = run(inputs, out, sound=tmp_path / "speech.wav", lines=lines)
    assert result.frames == frames == len(list(read_video.read_frames(out)))
    assert result.mode == "cross" and any("34 frames" in line for line in lines)
    assert audio.read_audio(out, rate=None)[1] == rate


def test_sound_for_half_a_frame_is_enough_for_it():
    assert edit.frames_of_sound(16000, 16000, Fraction(25)) == 25
    assert edit.frames_of_sound(16000 - 300, 16000, Fraction(25)) == 25
    assert edit.frames_of_sound(16000 - 340, 16000, Fraction(25)) == 24
    # 29.97 fps, an hour: no drift
    assert edit.frames_of_sound(3600 * 48000, 48000, FPS) == 107892


def test_a_clip_can_be_the_source(inputs, tmp_path):
    write_wav(tmp_path / "speech.wav", np.zeros(3000), 16000)
    sound = tmp_path / "speech.wav"
    assert run(inputs, tmp_path / "o.mp4", "silent.mp4", "clip.mp4", sound=sound).frames == 6


def test_a_bundle_of_drawn_people_refuses_all_others(inputs, tmp_path, monkeypatch):
    pipe = random_bundle.pipe()
    monkeypatch.setitem(pipe.config, "faces", "drawn")
    drawn = (
        sampling.write(tmp_path, identities=1, clips=1, frames=3, size=64).parent / "0000/000.mp4"
    )
    edit.infer(pipe, drawn, drawn, tmp_path / "out.mp4", report=str)
    for source, target in ((drawn, "silent.mp4"), ("clip.mp4", drawn), ("face.png", drawn)):
        with pytest.raises(MediaError, match="drawn faces only.*see docs/data.md") as caught:
            edit.infer(pipe, inputs / source, inputs / target, tmp_path / "no.mp4", drawn)
        assert "\n" not in str(caught.value)
    edit.infer(pipe, inputs / "face.png", drawn, tmp_path / "any.mp4", report=str, any_face=True)


def test_self_driven_takes_the_first_face_as_reference_and_cross_driven_its_own(monkeypatch):
    pipe, calls = random_bundle.pipe(), []

    def sync(target, reference, sound, warp):
        calls.append((target, reference, warp))
        return target

    monkeypatch.setattr(pipe, "sync", sync)
    frames = np.random.default_rng(0).integers(0, 255, (6, 16, 16, 3), np.uint8)
    matrices = np.tile(np.eye(2, 3), (6, 1, 1))
    matrices[0] = np.nan
    points = np.random.default_rng(1).uniform(0, 16, (6, 68, 2))
    source = pipe.encode(frames[:1])[0]

    def heard(first, count):
        return np.full((count, 4, 160), first)

    for own in (False, True):
        made = list(
            edit.edit(pipe, iter(frames), matrices, points, source, heard, own, not own, True)
        )
        assert len(made) == 6 and (made[0] == frames[0]).all()
    (first, r0, w0), (second, r1, _), (third, r2, w2), _ = calls
    assert (r0 == first[0]).all() and (r1 == first[0]).all() and w0
    assert (r2 == third).all() and not w2 and len(first) == 3 and len(second) == 2


@pytest.mark.parametrize(
    "change, words",
    [
        ({"source": "none.png"}, "does not exist"),
        ({"source": "clip.landmarks.npz"}, "not a video"),
        ({"target": "clip.landmarks.npz"}, "not a video"),
        ({"target": "silent.mp4"}, "no sound; give some with --audio"),
        ({"sound": "face.png"}, "sound"),
        ({"target": "faceless.mp4"}, "no face was found in its 34 frames"),
        ({"source": "faceless.mp4"}, "no face was found"),
        ({"target": "short.mp4"}, "speaks of 34 frames"),
        ({"out": "clip.mp4"}, "also an input"),
        ({"out": "out.avi"}, "ends in .mp4"),
        ({"out": "face.png/out.mp4"}, "cannot be written"),
    ],
)
def test_errors_are_one_clear_line_and_leave_nothing(inputs, tmp_path, change, words):
    here = tmp_path / "inputs"
    shutil.copytree(inputs, here)
    shutil.copy(here / "clip.mp4", here / "faceless.mp4")
    nowhere = np.full((FRAMES, 68, 2), np.nan)
    landmarks.save_landmarks(here / "faceless.landmarks.npz", nowhere)
    if change.get("target") == "short.mp4":
        sound = (np.zeros(44100, np.float32), 44100)
        frames = list(read_video.read_frames(here / "clip.mp4"))[:3]
        write_video.write_video(here / "short.mp4", frames, FPS, sound)
        shutil.copy(here / "clip.landmarks.npz", here / "short.landmarks.npz")
    held = sorted(os.listdir(here))
    paths = {"source": "face.png", "target": "clip.mp4", "out": "new.mp4"} | change
    paths = {name: here / path for name, path in paths.items()}
    with pytest.raises(read_video.MediaError, match=words) as caught:
        edit.infer(random_bundle.pipe(), **paths, report=lambda line: None)
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(here)) == held


def test_two_runs_at_once_into_one_folder_do_not_meet(inputs, tmp_path, self_driven):
    outs = [tmp_path / f"{name}.mp4" for name in "ab"]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda out: run(inputs, out), outs))
    expected = np.stack(list(read_video.read_frames(self_driven[1]))).astype(np.int16)
    for out in outs:
        # x264's macroblock tree rounds differently on a busy machine: by 3 levels at most here.
        assert np.abs(np.stack(list(read_video.read_frames(out))) - expected).max() <= 8
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "b.mp4"]


def test_an_interrupt_leaves_nothing(inputs, tmp_path, monkeypatch):
    pipe, decode, calls = random_bundle.pipe(), random_bundle.pipe().decode, []

    def interrupted(z):
        calls.append(len(z))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return decode(z)

    monkeypatch.setattr(pipe, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(inputs, tmp_path / "out.mp4")
    assert os.listdir(tmp_path) == []


def test_the_command_line_tells_an_error_in_one_line(inputs, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "swaptalk_jax.infer", f"--bundle={tmp_path}/none",
         f"--source={inputs}/face.png", f"--target={inputs}/clip.mp4", f"--out={tmp_path}/o.mp4"],
        env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 78 and "no bundle here" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_changed_or_incomplete_bundle_is_refused(tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(random_bundle.folder(), bundle)
    data = bytearray((bundle / "swap.safetensors").read_bytes())
    data[-1] ^= 1
    (bundle / "swap.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="swap.safetensors: its bytes"):
        swaptalk.SwapTalk(bundle)
    (bundle / "swap.safetensors").unlink()
    with pytest.raises(CheckpointError, match="swap.safetensors: cannot be read"):
        swaptalk.SwapTalk(bundle)
    (bundle / "config.json").write_text('{"format": "other"}')
    with pytest.raises(CheckpointError, match="not a bundle"):
        swaptalk.SwapTalk(bundle)


def test_a_bundle_holds_what_it_needs_to_be_used_alone():
    params, config = load(random_bundle.folder())
    assert set(params) == set(random_bundle.MODEL) == set(config["model"])
    assert config["image_size"] == random_bundle.SIZE and config["steps"]["swap"] == 7
    assert config["audio"] == dict(features="log_mel", width=160, context=2, window=5)
    assert config["vqgan"] == store.fingerprint(params["vqgan"])
    assert "consent" in config["notice"] and "generated" in config["notice"]


def test_export_refuses_by_name_and_keeps_the_old_bundle(tmp_path):
    runs, out = tmp_path / "runs", tmp_path / "bundle"
    random_bundle.train(runs, stages=("vqgan", "identity", "expert", "swap"))
    with pytest.raises(CheckpointError, match="sync: this stage is not finished"):
        export(random_bundle.folders(runs), out, stages.bundled())
    assert not out.exists()
    random_bundle.train(runs)
    export(random_bundle.folders(runs), out, stages.bundled())
    held = json.loads((out / "config.json").read_text())
    settings = json.loads((runs / "expert" / "config.json").read_text())
    settings["vqgan_fingerprint"] = "0" * 16
    (runs / "expert" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="expert: was trained on another VQGAN"):
        export(random_bundle.folders(runs), out, stages.bundled())
    assert json.loads((out / "config.json").read_text()) == held
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="holds other files"):
        export(random_bundle.folders(runs), tmp_path / "mine", stages.bundled())
    assert sorted(os.listdir(tmp_path)) == ["bundle", "mine", "runs"]


def test_results_do_not_depend_on_the_batch():
    pipe = random_bundle.pipe()
    images = np.random.default_rng(0).integers(0, 255, (6, 16, 16, 3), np.uint8)
    z = pipe.encode(images)
    one_by_one = np.concatenate([pipe.encode(images[i : i + 1]) for i in range(6)])
    assert (z == one_by_one).all()
    assert (pipe.swap(z[0], z) == pipe.swap(np.repeat(z[:1], 6, 0), z)).all()
    assert pipe.decode(z).shape == images.shape and pipe.decode(z).dtype == np.uint8


def write_odd_clip(path, frames, sound):
    """H.264 4:4:4, which may have odd sides, with stereo at 44.1 kHz."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "5"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv444p"
        track = container.add_stream("aac", rate=44100, layout="stereo")
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))
        block = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T), "fltp", "stereo")
        block.sample_rate = 44100
        container.mux(track.encode(block))
        container.mux(track.encode(None))


def write_wav(path, samples, rate):
    """16-bit mono."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        data = np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(data, "s16", "mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_the_bundles_rules_hold_until_a_user_says_otherwise(monkeypatch):
    assert random_bundle.pipe().rules == swaptalk.Rules("self", True)  # a bundle that names none
    paper = swaptalk.Rules("never", False)
    assert paper.changed("auto", "auto") == paper
    assert paper.changed("always", "yes") == swaptalk.Rules("always", True)
    assert swaptalk.Rules().changed("never", "no") == paper
    warps = {w: [swaptalk.Rules(w).warps(own) for own in (False, True)] for w in ("self", "always")}
    assert warps == {"self": [True, False], "always": [True, True]} and not paper.warps(False)


def test_swap_and_sync_follow_the_rules(monkeypatch):
    pipe = random_bundle.pipe()
    images = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), np.uint8)
    z = pipe.encode(images)
    sound = np.random.default_rng(1).normal(size=(2, 4 * 160)).astype(np.float32).reshape(2, 4, 160)
    ours = pipe.swap(z[0], z[1:]), pipe.sync(z[1:], z[0], sound)
    monkeypatch.setattr(pipe, "rules", swaptalk.Rules("never", False))
    papers = pipe.swap(z[0], z[1:]), pipe.sync(z[1:], z[0], sound)
    np.testing.assert_array_equal(ours[0], pipe.quantize(papers[0]))
    np.testing.assert_array_equal(ours[1], pipe.sync(z[1:], z[0], sound, warp=True))
    np.testing.assert_array_equal(papers[1], pipe.sync(z[1:], z[0], sound, warp=False))
    assert np.abs(ours[0] - papers[0]).max() > 0 and np.abs(ours[1] - papers[1]).max() > 0


def test_what_a_user_of_a_bundle_waits_for_is_small():
    heavy = "orbax", "grain", "tensorboardX", "tensorflow_datasets", "optax"
    rooms = "swaptalk_jax.training", "swaptalk_jax.stages", "configs"
    code = "import sys, swaptalk_jax.infer; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    modules = done.stdout.split()
    assert "swaptalk_jax.inference.edit" in modules
    assert not [m for m in modules if m.split(".")[0] in heavy or m.startswith(rooms)]
