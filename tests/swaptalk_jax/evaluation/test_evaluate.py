"""evaluate on data for which the random bundle's VQGAN is exact, so that numbers are known."""

import importlib.util
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_bundle
import record_sets
from random_bundle import AUDIO, CODES, GRID, SIZE

from data_pipelines.records import kinds
from swaptalk_jax import evaluate
from swaptalk_jax.evaluation import evaluation, renders, report
from swaptalk_jax.evaluation.metrics import id_retrieve, mouth, perceptual, reconstruction
from swaptalk_jax.evaluation.split import ValidationSplit
from swaptalk_jax.inference import swaptalk
from swaptalk_jax.models import registry
from swaptalk_jax.weights import store

PEOPLE, FRAMES, TRIPLES = 3, 14, 10


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Records of three people whose frames are decoded codes: (root of both kinds)."""
    root, pipe, rng = (
        tmp_path_factory.mktemp("data"),
        random_bundle.pipe(),
        np.random.default_rng(0),
    )
    codes = rng.integers(0, CODES // 2, (PEOPLE, FRAMES, *GRID)).astype(np.uint16)
    images = np.stack([pipe.decode(pipe.lookup(c)) for c in codes])
    embeddings = np.stack([pipe.embed(i) for i in images])
    names = [f"person{i}" for i in range(PEOPLE)]
    known = {"size": SIZE, "identities": names}
    made = {
        "identities": names, "fingerprint": pipe.config["vqgan"], "grid": list(GRID),
        "audio": "log_mel", "audio_width": AUDIO, "embedding": 8,
    }  # fmt: skip
    points = rng.uniform(4, 12, (68, 2)).astype(np.float32)
    frames, clips, triples, swaps = [], [], [], []
    for i in range(PEOPLE):
        for k in range(FRAMES):
            frames.append({
                "image": kinds.encode_image(images[i, k]), "landmarks": points,
                "matrix": np.eye(2, 3, dtype=np.float32), "identity": np.int32(i),
                "clip": names[i], "frame": np.int32(k),
            })  # fmt: skip
        clips.append({
            "name": names[i], "identity": np.int32(i), "first": np.int64(i * FRAMES),
            "codes": codes[i], "embedding": embeddings[i].mean(0),
            "features": rng.normal(size=(2 * FRAMES, AUDIO)).astype(np.float16),
        })  # fmt: skip
    for _ in range(TRIPLES):
        (a, b), (j, k) = rng.choice(PEOPLE, 2, replace=False), rng.integers(1, FRAMES, 2)
        people = {"source_identity": np.int32(a), "target_identity": np.int32(b)}
        triples.append(people | {
            "source": np.int64(a * FRAMES + j), "target": np.int64(b * FRAMES + k),
            "result": kinds.encode_image(images[a, k]),
        })  # fmt: skip
        swaps.append(people | {
            "source": codes[a, j], "target": codes[b, k], "result": codes[a, k],
            "id_source": embeddings[a, j], "id_result": embeddings[a, k],
        })  # fmt: skip
    record_sets.write(root, "frames", known, {"val": frames})
    record_sets.write(root, "codes", made, {"val": clips})
    record_sets.write(root, "triples", known, {"val": triples})
    record_sets.write(root, "swaps", made, {"val": swaps})
    return root


@pytest.fixture(scope="module")
def evaluated(data):
    """(evaluation, pictures) of the random bundle."""
    return evaluation.evaluate(random_bundle.pipe(), data, data)


def test_every_promised_number_is_there_and_finite(evaluated):
    numbers, _ = evaluated
    for name in evaluation.THRESHOLDS:
        assert np.isfinite(numbers[name]) and name in numbers["thresholds"]
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert numbers["examples"]["swap/id_retrieval"] == TRIPLES
    assert numbers["examples"]["vqgan/psnr"] == PEOPLE * FRAMES
    assert numbers["examples"]["sync/mouth_error"] == PEOPLE * renders.WINDOWS * 5
    if importlib.util.find_spec("dlib"):
        assert numbers["examples"]["second/id_retrieval"] == TRIPLES
        if "lips/correlation" in numbers:  # random landmarks: the predictor may see no movement
            assert numbers["lips/correlation_ceiling"] == pytest.approx(1)
    assert numbers["bundle"]["steps"]["sync"] == 7 and not numbers["passed"]


def test_numbers_of_an_exact_latent_space(evaluated):
    numbers, _ = evaluated
    assert numbers["vqgan/psnr"] > 70  # the frames are the codes' own pictures
    assert numbers["vqgan/codes_used_upper"] == 0.5 == numbers["vqgan/codes_used_lower"]
    assert numbers["sync/mouth_error_ratio_floor"] == 0 == numbers["vqgan/background_hue"]
    assert numbers["sync/sharpness_floor"] == 1 == numbers["sync/flicker_floor"]


def test_a_perceptual_network_looks_where_one_is_named(data, tmp_path):
    fields = {"widths": (4, 4, 4, 4, 4), "heads": True}
    image = jnp.zeros((1, SIZE, SIZE, 3))
    init = registry.build("perceptual", fields).init
    params = init(jax.random.key(0), image, image, method="distance")["params"]
    store.save_network(tmp_path, {"perceptual": params}, {"model": {"perceptual": fields}})
    pipe = random_bundle.pipe()
    split = ValidationSplit(pipe, data, data, perceptual.Perceptual(tmp_path))
    numbers, examples, _ = perceptual.lpips(pipe, split)
    assert numbers["vqgan/lpips"] < 1e-4 < numbers["swap/lpips_unchanged"]
    assert np.isfinite(numbers["swap/lpips"]) and examples["swap/lpips"] == TRIPLES
    assert perceptual.lpips(pipe, ValidationSplit(pipe, data, data)) == ({}, {}, {})


def test_the_mouth_ratio_is_0_for_the_truth_and_1_for_the_reference(data, monkeypatch):
    pipe = random_bundle.pipe()
    split = ValidationSplit(pipe, data, data)
    monkeypatch.setattr(pipe, "sync", lambda target, *_, **__: target)
    numbers = mouth.sync(pipe, split)[0]
    assert numbers["sync/mouth_error_ratio"] == 0
    assert numbers["sync/sharpness"] == 1 == numbers["sync/flicker"]
    monkeypatch.setattr(pipe, "sync", lambda t, r, *_, **__: mouth.with_lips(t, r))
    assert mouth.sync(pipe, split)[0]["sync/mouth_error_ratio"] == 1


def test_lips_of_the_floor_hear_another_clip(data, monkeypatch):
    pipe, heard = random_bundle.pipe(), []
    split = ValidationSplit(pipe, data, data)
    monkeypatch.setattr(pipe, "sync", lambda z, _, audio: heard.append(audio) or z)
    made = renders.spoken(pipe, *split.clips[:2], frames=5)
    assert sorted(made) == ["", "_ceiling", "_floor"]
    for audio, clip in zip(heard, split.clips, strict=False):
        np.testing.assert_array_equal(audio, renders.sound_around(pipe, clip, 4, first=1))
    np.testing.assert_array_equal(made["_ceiling"], split.images(range(1, 5))[0])


def test_a_perfect_swap_is_retrieved_as_often_as_the_truth(data, monkeypatch):
    pipe = random_bundle.pipe()
    split = ValidationSplit(pipe, data, data)
    reconstruction.latent_space(pipe, split)
    wanted = iter(range(0, TRIPLES, pipe.batch_size))
    results = np.stack([split.swaps[i]["result"] for i in range(TRIPLES)])

    def perfect(source, target, quantize=True):
        at = next(wanted)
        return pipe.lookup(results[at : at + len(target)])

    monkeypatch.setattr(pipe, "swap", perfect)
    numbers = id_retrieve.swap(pipe, split)[0]
    assert numbers["swap/psnr"] > 70
    assert numbers["swap/id_retrieval"] == numbers["swap/id_retrieval_truth"]


def test_codes_of_another_vqgan_are_refused(data, monkeypatch):
    pipe = random_bundle.pipe()
    monkeypatch.setitem(pipe.config, "vqgan", "0" * 16)
    with pytest.raises(kinds.RecordError, match="encode again"):
        evaluation.evaluate(pipe, data, data)


def test_the_report_stands_alone(evaluated, tmp_path):
    lines = [
        {"step": i, "loss": 1 / (i + 1), "val/psnr": float("nan") if i else 3.0} for i in (0, 9)
    ]
    (tmp_path / "swap").mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 10, "lo'
    (tmp_path / "swap" / "metrics.jsonl").write_text(text)
    (tmp_path / "clip.mp4").write_bytes(b"clip")
    page = report.page(*evaluated, tmp_path, tmp_path / "clip.mp4")
    assert not re.findall(r"(?:src|href)='(?!data:)", page)  # no other file, no network
    # Eighths of 42 frames, of 10 swaps and of 3 clips, rounded up: 6, 2 and 1.
    shown = 3 * (renders.SHOWN * 2 + 2 * 4 + 1 * 3)
    assert page.count("<img") == shown and page.count("<svg") == 2
    for name in evaluation.THRESHOLDS:
        assert name in page
    for caption in ("Worst eighth", "Median", "Best eighth"):
        assert page.count(f"<h3>{caption}</h3>") == 3
    assert "width: 256px" in page and "image-rendering: pixelated" in page
    assert "generated" in page and "consent" in page


def test_command_line_writes_both_files(data, tmp_path, monkeypatch, capsys):
    class Flags:
        bundle, out, workdir, clip, require, batch_size = "b", str(tmp_path), None, None, True, 4
        warp, quantize, perceptual = "auto", "auto", ""

    Flags.data = Flags.codes = str(data)
    monkeypatch.setattr(swaptalk, "SwapTalk", lambda *_: random_bundle.pipe())
    assert evaluate.main(Flags) == 1  # --require, and random networks
    assert "FAIL  swap/error_ratio" in capsys.readouterr().out
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert "swap/id_retrieval" in found and found["rules"] == {"warp": "self", "quantize": True}
    assert (tmp_path / "report.html").stat().st_size > 10_000
    Flags.data = str(tmp_path)
    with pytest.raises(kinds.RecordError, match="there are no frames here"):
        evaluate.main(Flags)
