"""Speech networks as features: equal to the original, no seams, and one name from codes to bundle.

The networks are random: reduced numbers of the true architectures.
"""

import json
import shutil
import struct

import jax
import numpy as np
import pytest
import random_bundle
import record_sets
from parity import speech as parity
from safetensors.numpy import save_file

from data_pipelines.faces import landmarks
from data_pipelines.media import log_mel as media_log_mel
from data_pipelines.media import read_video, write_video
from data_pipelines.media.log_mel import piece, whisper_loudest, whisper_mel
from data_pipelines.records import reader as records_reader
from data_pipelines.records.kinds import RecordError, encode_image
from data_pipelines.synthetic import sampling
from swaptalk_jax import errors, stages
from swaptalk_jax import sound as swaptalk_jax_sound
from swaptalk_jax.configs import expert, vqgan
from swaptalk_jax.encoding import sets
from swaptalk_jax.inference import edit, swaptalk
from swaptalk_jax.models.public import whisper as whisper_model
from swaptalk_jax.pretrained import hubert, whisper
from swaptalk_jax.pretrained.formats import ctranslate2
from swaptalk_jax.sound import FADE, OVERLAP, Features, first_moments, loudness, starts
from swaptalk_jax.training import loop
from swaptalk_jax.weights import bundle, encoded, store

KINDS = tuple(parity.SMALL)
GOLDEN = np.load(parity.GOLDEN)


def imported(kind, tensors, folder):
    """(parameters, fields) as an importer reads them from transformers' safetensors."""
    save_file(tensors, folder / "model.safetensors")
    return reader(kind).read(folder / "model.safetensors")


def reader(kind):
    return whisper if kind.startswith("whisper") else hubert


@pytest.fixture(scope="module", autouse=True)
def compiled_in_a_hurry():
    """What is compiled here runs once or twice."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def networks(tmp_path_factory):
    """kind -> (parameters, fields)."""
    folder = tmp_path_factory.mktemp("networks")
    return {kind: imported(kind, parity.weights(kind), folder) for kind in KINDS}


def features(network, kind, window=None, **fields):
    """Features of a reduced network, with other fields."""
    params, known = network
    config = {
        "network": "WhisperEncoder" if kind.startswith("whisper") else "Hubert",
        "model": {"speech": known | fields},
    }
    made = Features(kind, (params, config))
    if window:
        made._function.window = window
    return made


def installed(folder, network, name):
    """What `python -m swaptalk_jax.pretrained fetch` leaves of a Whisper."""
    params, fields = network
    config = {
        "stage": "pretrained",
        "network": "WhisperEncoder",
        "model": {"speech": fields},
        "source": {"name": name},
    }
    store.save_network(folder, {"speech": params}, config)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_originals(networks, kind):
    window = 50 * parity.SECONDS if kind.startswith("whisper") else None
    ours = features(networks[kind], kind, window, output=None)(parity.sound())
    theirs = GOLDEN[kind]
    assert ours.dtype == np.float32 and ours.shape == (50 * parity.SECONDS, theirs.shape[1])
    assert parity.relative(ours[:: parity.EVERY], theirs) < 1e-4


@pytest.mark.parametrize("kind", ["whisper", "hubert"])
def test_every_length_gives_a_token_for_each_320_samples(networks, kind, monkeypatch):
    monkeypatch.setattr(swaptalk_jax_sound, "OVERLAP", 3)
    monkeypatch.setattr(swaptalk_jax_sound, "FADE", 1)
    made, sound = features(networks[kind], kind, 7), parity.sound(0.2)
    for n in (0, 1, 2, 159, 160, 161, 319, 320, 321, 3200):
        tokens = made(sound[:n])
        assert tokens.shape == (max(1, -(-n // 320)), made.width) and np.isfinite(tokens).all()
    broken = sound.copy()
    broken[100:103] = np.nan, np.inf, -np.inf
    silent = sound.copy()
    silent[100:103] = 0
    np.testing.assert_array_equal(made(broken), made(silent))
    assert made._function._run.func._cache_size() == 1  # one compilation for all lengths
    for wrong in (np.zeros(10, np.int16), np.zeros((10, 2), np.float32)):
        with pytest.raises(read_video.MediaError, match="float samples"):
            made(wrong)


@pytest.mark.parametrize("kind", ["whisper", "hubert_stable"])
def test_tokens_stand_in_the_middle_of_their_samples(networks, kind):
    params, fields = networks[kind]
    if kind == "hubert_stable":  # its positions would spread a change over 128 tokens
        still = {"kernel": 0 * params["position"]["kernel"], "bias": params["position"]["bias"]}
        params = params | {"position": still}
    made, sound = features((params, fields), kind, 100, output=0), parity.sound()
    before = made(sound)

    def changed(at):
        other = sound.copy()
        other[at] += 0.2
        change = np.abs(made(other) - before).max(1)
        return set(np.flatnonzero(change > 1e-2 * change.max()))

    near = {-1, 0, 1} if kind == "whisper" else {0}
    assert changed(320 * 40 + 160) == {40 + i for i in near}
    assert changed(320 * 40) >= {39, 40}


def test_a_short_clip_is_followed_by_silence_as_in_the_original(networks):
    made, sound = features(networks["whisper"], "whisper"), parity.sound()
    longer = np.pad(sound, (0, 16000 * 28))
    np.testing.assert_array_equal(made(sound), made(longer)[:100])


@pytest.mark.parametrize("kind", ["whisper", "hubert"])
def test_what_is_local_is_the_same_with_and_without_windows(networks, kind, monkeypatch):
    # Whisper tells tokens their place in a window: no other part of it does.
    monkeypatch.setattr(whisper_model, "positions", lambda n, d: np.zeros((n, d), np.float32))
    monkeypatch.setattr(
        swaptalk_jax_sound, "OVERLAP", 150
    )  # 65 and 64 tokens of it hear the window's end
    monkeypatch.setattr(swaptalk_jax_sound, "FADE", 20)
    sound = parity.sound(7)
    whole = features(networks[kind], kind, 400, output=0)(sound)
    pieces = features(networks[kind], kind, 300, output=0)(sound)
    assert whole.shape == pieces.shape == (350, networks[kind][1]["width"])
    assert parity.relative(pieces, whole) < 1e-4


def test_no_step_shows_between_windows(networks):
    made = features(networks["whisper"], "whisper", 500, output=None)
    tokens = made(parity.sound(14))
    steps = np.linalg.norm(np.diff(tokens, axis=0), axis=1)
    border = 250 + (OVERLAP - FADE) // 2
    fade = steps[border - 1 : border + FADE + 1]
    beside = np.concatenate([steps[border - 60 : border - 1], steps[border + 51 : border + 111]])
    assert fade.max() < 1.2 * beside.max() and fade.mean() < 1.1 * beside.mean()


@pytest.mark.parametrize("window", [500, 1000, 1500])
def test_windows_cover_a_sound_and_their_shares_sum_to_one(window):
    for tokens in (1, 250, window - 1, window, window + 1, 2 * window, 5003):
        sums = np.zeros(tokens + window)
        for start in starts(tokens, window):
            shares = swaptalk_jax_sound.fade(window, start > 0, start + window < tokens)
            assert start == 0 or not shares[:100].any()
            sums[start : start + window] += shares
        np.testing.assert_allclose(sums[:tokens], 1, atol=1e-6)


def test_numbers_of_the_whole_sound_do_not_depend_on_blocks(networks, monkeypatch):
    sound, kernel = parity.sound(), networks["hubert"][0]["conv_0"]["kernel"][:, 0]
    padded = np.pad(sound, 40, "reflect").astype(np.float64)
    outputs = np.lib.stride_tricks.sliding_window_view(padded, 10)[::5] @ kernel
    for block in (1 << 20, 1003):
        monkeypatch.setattr(swaptalk_jax_sound, "BLOCK", block)
        np.testing.assert_allclose(loudness(sound), (sound.mean(), sound.std()), rtol=1e-4)
        found = first_moments(lambda a, b: piece(sound, a, b), 100, kernel)
        np.testing.assert_allclose(found, (outputs.mean(0), outputs.var(0)), rtol=1e-4)


def test_whispers_spectrum_is_clipped_below_the_loudest_moment():
    sound = parity.sound() * np.repeat([1e-6, 1], 16000)
    mel = whisper_mel(sound, 80)
    assert mel.shape == (200, 80) and mel.dtype == np.float32
    loudest = whisper_loudest(sound, 80)
    assert mel.max() == pytest.approx((loudest + 4) / 4, abs=1e-6)
    assert mel.min() == pytest.approx((loudest - 4) / 4, abs=1e-6)
    quiet = whisper_mel(sound[:8000], 80, loudest)
    np.testing.assert_allclose(quiet[:45], mel[:45], atol=1e-6)


def test_all_namings_of_whisper_give_the_same_network(networks, tmp_path):
    tensors = parity.weights("whisper")
    openai = {}
    for key, value in tensors.items():
        for name, theirs in whisper.TRANSFORMERS.items():
            if name not in ("block", "positions"):
                key = key.replace(f".{theirs}.", f".{whisper.OPENAI[name]}.")
        openai["model_state_dict/" + key.replace(".layers.", ".blocks.")] = value
    positions = whisper_model.positions(100, 128)
    openai["model_state_dict/encoder.positional_embedding"] = positions
    openai["model_state_dict/decoder.ln.weight"] = positions[0]
    write_ctranslate2(tmp_path / "model.bin", tensors, positions)
    for made in (imported("whisper", openai, tmp_path), whisper.read(tmp_path / "model.bin")):
        assert made[1] == networks["whisper"][1]
        assert store.fingerprint(made[0]) == store.fingerprint(networks["whisper"][0])


def write_ctranslate2(path, tensors, positions, cut=None):
    """transformers' tensors as CTranslate2 keeps them, in float32."""
    found = {"encoder/position_encodings/encodings": positions}
    found["encoder/num_heads"] = np.int16(2)
    pairs = {"encoder.": "encoder/", "layers.": "layer_", "self_attn_layer_norm": None}
    del pairs["self_attn_layer_norm"]
    names = {
        "self_attn_layer_norm": "self_attention/layer_norm",
        "final_layer_norm": "ffn/layer_norm",
        "self_attn.out_proj": "self_attention/linear_1",
        "fc1": "ffn/linear_0",
        "fc2": "ffn/linear_1",
    }
    for key, value in tensors.items():
        if "_proj" in key and "out_proj" not in key:
            continue
        stem, end = key.rsplit(".", 1)
        if "norm" in stem:
            end = {"weight": "gamma", "bias": "beta"}[end]
        for theirs, other in (names | pairs).items():
            stem = stem.replace(theirs, other)
        found[f"{stem}/{end}".replace(".", "/")] = value
    for i in range(2):
        parts = [f"encoder.layers.{i}.self_attn.{name}_proj." for name in "qkv"]
        known = tensors | {f"{parts[1]}bias": np.zeros(128, np.float32)}
        for end in ("weight", "bias"):
            joined = np.concatenate([known[part + end] for part in parts])
            found[f"encoder/layer_{i}/self_attention/linear_0/{end}"] = joined

    def text(value):
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    kinds = [np.dtype(kind) for kind in ctranslate2.DTYPES]
    blob = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(found))
    for name, value in found.items():
        value = np.asarray(value)
        blob += text(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        blob += struct.pack("<BI", kinds.index(value.dtype), value.nbytes) + value.tobytes()
    path.write_bytes((blob + struct.pack("<I", 0))[:cut])


def test_both_namings_of_the_weight_norm_and_a_prefix_give_the_same_network(networks, tmp_path):
    tensors, old = parity.weights("hubert"), {}
    for key, value in tensors.items():
        key = key.replace("parametrizations.weight.original0", "weight_g")
        old["hubert." + key.replace("parametrizations.weight.original1", "weight_v")] = value
    old["lm_head.weight"] = np.zeros((32, 128), np.float32)
    made = imported("hubert", old, tmp_path)
    assert store.fingerprint(made[0]) == store.fingerprint(networks["hubert"][0])
    assert made[1] == networks["hubert"][1] and not made[1]["stable"]


def test_importers_refuse_in_one_line(tmp_path):
    whisper_tensors, hubert_tensors = parity.weights("whisper"), parity.weights("hubert")
    positions = whisper_model.positions(100, 128)
    del hubert_tensors["encoder.layers.1.final_layer_norm.bias"]
    for kind, tensors, told in (
        ("hubert", whisper_tensors, "no tensor feature_projection.projection.weight"),
        ("whisper", hubert_tensors, "no tensor encoder.conv1.weight; is this a Whisper"),
        ("hubert", hubert_tensors, "no tensor encoder.layers.1.final_layer_norm.bias"),
        (
            "whisper",
            whisper_tensors | {"encoder.embed_positions.weight": positions + 0.1},
            "not Whisper's sinusoids",
        ),
    ):
        with pytest.raises(errors.CheckpointError, match=told) as error:
            imported(kind, tensors, tmp_path)
        assert "\n" not in str(error.value)
    for cut in (3, 100, 10_000):
        write_ctranslate2(tmp_path / "cut.bin", whisper_tensors, positions, cut)
        with pytest.raises(errors.CheckpointError):
            ctranslate2.read(tmp_path / "cut.bin")
    with pytest.raises(errors.CheckpointError, match="absent.bin: cannot be read"):
        whisper.read(tmp_path / "absent.bin")


def test_features_are_named_by_what_they_are(networks, tmp_path):
    one = Features(str(installed(tmp_path / "one", networks["whisper"], "tiny")))
    two = Features(installed(tmp_path / "two", networks["whisper"], "tiny"))
    assert one.name == two.name == "tiny" and one.fingerprint == two.fingerprint
    params, fields = networks["whisper"]
    other = installed(tmp_path / "two", (params, fields | {"output": 2}), "tiny")
    assert Features(other).fingerprint != one.fingerprint
    log_mel = Features("log_mel")
    assert (log_mel.name, log_mel.width, log_mel.network) == ("log_mel", 160, None)
    np.testing.assert_array_equal(log_mel(parity.sound()), media_log_mel.log_mel(parity.sound()))
    for source, told in ((tmp_path / "none", "neither a feature"), ("mel", "installed speech")):
        with pytest.raises(errors.CheckpointError, match=told):
            Features(source)
    store.save_network(tmp_path / "face", {"recogniser": params}, {"network": "SFace"})
    with pytest.raises(errors.CheckpointError, match="holds SFace, which is no speech"):
        Features(tmp_path / "face")


@pytest.fixture(scope="module")
def world(networks, tmp_path_factory):
    """Faces of 16 px, a random VQGAN and recogniser, and codes with features of a Whisper."""
    root = tmp_path_factory.mktemp("world")
    rng, frames = np.random.default_rng(0), 12
    folder = installed(root / "whisper", networks["whisper_128_mels"], "small_whisper")
    known = {"size": random_bundle.SIZE, "identities": ["a", "b"]}
    with (
        record_sets.Writer(root, "frames", known) as f,
        record_sets.Writer(root, "clips", known) as c,
    ):
        with record_sets.Writer(root, "triples", known) as t:
            for split in ("train", "val"):
                for i in range(2):
                    for k in range(frames):
                        image = rng.integers(0, 255, (16, 16, 3), np.uint8)
                        f.write(split, {
                            "image": encode_image(image),
                            "landmarks": rng.uniform(4, 12, (68, 2)).astype(np.float32),
                            "matrix": np.eye(2, 3, dtype=np.float32), "identity": np.int32(i),
                            "clip": f"{split}{i}", "frame": np.int32(k),
                        })  # fmt: skip
                    sound = rng.normal(0, 3000, 640 * frames).astype(np.int16)
                    c.write(split, {
                        "name": f"{split}{i}", "identity": np.int32(i), "identity_name": "ab"[i],
                        "first": np.int64(i * frames), "frames": np.int32(frames), "audio": sound,
                        "meta": "{}",
                    })  # fmt: skip
                t.write(split, {
                    "source": np.int64(0), "target": np.int64(frames),
                    "result": encode_image(image), "source_identity": np.int32(0),
                    "target_identity": np.int32(1),
                })  # fmt: skip
    random_bundle.train(root / "runs", stages=("vqgan", "identity"))
    sets.Encoding(config(root, vqgan, "vqgan", folder), root / "codes", batch_size=8).run()
    return root, folder


def config(root, module, stage, features):
    """A micro config that works below root."""
    c = module.get_config("micro")
    c.workdir, c.needs = str(root / "runs" / stage), ()
    c.data.features = str(features)
    c.data.root = str(root if stage == "vqgan" else root / "codes")
    c.frozen = {"vqgan": str(root / "runs/vqgan"), "recogniser": str(root / "runs/identity")}
    c.train.steps = 2
    return c


def test_codes_hold_the_networks_features_and_say_so(world):
    root, folder = world
    made, metadata = Features(folder), records_reader.metadata(root / "codes", "codes")
    assert metadata["audio"] == "small_whisper" and metadata["audio_width"] == made.width == 64
    assert metadata["audio_fingerprint"] == made.fingerprint
    clip = records_reader.source(root, "clips", "val")[1]
    tokens = made(clip["audio"].astype(np.float32) / 32768)
    stored = records_reader.source(root / "codes", "codes", "val")[1]["features"]
    np.testing.assert_array_equal(stored, tokens[:24].astype(np.float16))


def test_training_refuses_codes_with_other_features(world, networks, tmp_path):
    root, folder = world
    for other in ("log_mel", installed(tmp_path / "w", networks["whisper"], "other")):
        with pytest.raises(RecordError, match="its features of sound are small_whisper"):
            encoded.check_sound(config(root, expert, "expert", other), "windows")
    assert encoded.check_sound(config(root, expert, "expert", "log_mel"), "swaps") is None
    sync = config(root, expert, "sync", folder)
    sync.frozen.expert = str(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"stage": "expert"}))
    with pytest.raises(errors.CheckpointError, match="other features of sound .log_mel, here"):
        encoded.check_sound(sync, "windows")


def test_from_codes_to_a_clip_with_the_bundle_alone(world, tmp_path, monkeypatch):
    root, folder = world
    made = Features(folder)
    monkeypatch.setattr(random_bundle, "AUDIO", made.width)
    monkeypatch.setitem(random_bundle.DATA, "features", str(folder))
    runs = tmp_path / "runs"
    random_bundle.train(runs, stages=("vqgan", "identity", "swap", "sync"))
    with monkeypatch.context() as patch:  # the expert of a run that heard log-mel
        patch.setitem(random_bundle.DATA, "features", "log_mel")
        random_bundle.train(runs, stages=("expert",))
    with pytest.raises(errors.CheckpointError, match="expert: was trained on other features"):
        bundle.export(random_bundle.folders(runs), tmp_path / "bundle", stages.bundled())
    c = config(root, expert, "expert", folder)
    c.workdir = str(runs / "expert")
    shutil.rmtree(runs / "expert")
    loop.train(c)
    bundle.export(random_bundle.folders(runs), tmp_path / "bundle", stages.bundled())
    shutil.rmtree(runs)
    shutil.copytree(tmp_path / "bundle", tmp_path / "elsewhere")

    pipe = swaptalk.SwapTalk(tmp_path / "elsewhere", batch_size=4)
    assert pipe.audio == dict(features="small_whisper", width=64, context=2, window=5)
    assert pipe.features.fingerprint == made.fingerprint
    assert pipe.config["speech"]["source"]["name"] == "small_whisper"
    sound = parity.sound(1)
    np.testing.assert_array_equal(pipe.features(sound), made(sound))
    encoded.check(root / "codes", pipe.features)

    clip = sampling.sample_clip(seed=1, identity_index=0, clip_index=0, frames=8)
    drawn = [sampling.render_frame(clip, i, (64, 64)) for i in range(8)]
    target = tmp_path / "clip.mp4"
    write_video.write_video(target, [image for image, _ in drawn], 25, (sound, 16000))
    landmarks.save_landmarks(tmp_path / "clip.landmarks.npz", np.stack([p for _, p in drawn]))
    lines = []
    result = edit.infer(pipe, target, target, tmp_path / "out.mp4", report=lines.append)
    assert result.frames == 8 and read_video.probe(tmp_path / "out.mp4").frames == 8
