"""Whisper's encoder and HuBERT against transformers, on the same weights.

    python -m tests.parity.speech                           # rewrites the goldens, true sizes too
    python -m tests.parity.speech --whisper=model.bin       # a real Whisper as well (CTranslate2)

Needs torch and transformers. `weights` and `sound` make what tests/test_speech.py makes again.
"""

import pathlib
import sys
import tempfile

import numpy as np

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden" / "speech.npz"
EVERY = 4  # tokens that a golden keeps
SECONDS = 2  # of a reduced Whisper's window

# Reduced numbers of the true architectures, in transformers' words.
SMALL = {
    "whisper": dict(
        d_model=128, encoder_attention_heads=2, encoder_layers=2, encoder_ffn_dim=512,
        num_mel_bins=80, max_source_positions=50 * SECONDS,
    ),
    "whisper_128_mels": dict(
        d_model=64, encoder_attention_heads=1, encoder_layers=1, encoder_ffn_dim=256,
        num_mel_bins=128, max_source_positions=50 * SECONDS,
    ),
    "hubert": dict(
        hidden_size=128, num_attention_heads=2, num_hidden_layers=2, intermediate_size=256,
    ),
    "hubert_stable": dict(
        hidden_size=128, num_attention_heads=2, num_hidden_layers=2, intermediate_size=256,
        feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True,
    ),
}  # fmt: skip
TRUE = {
    "whisper tiny": dict(
        d_model=384, encoder_attention_heads=6, encoder_layers=4, encoder_ffn_dim=1536,
    ),
    "whisper base": dict(
        d_model=512, encoder_attention_heads=8, encoder_layers=6, encoder_ffn_dim=2048,
    ),
    "whisper large-v3": dict(
        d_model=1280, encoder_attention_heads=20, encoder_layers=32, encoder_ffn_dim=5120,
        num_mel_bins=128,
    ),
    "hubert base": dict(),
    "hubert large": dict(
        hidden_size=1024, num_attention_heads=16, num_hidden_layers=24, intermediate_size=4096,
        feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True,
    ),
}  # fmt: skip


def shapes(name):
    """{transformers' name: shape} of the tensors of a reduced network."""
    c = SMALL[name]
    if name.startswith("whisper"):
        d, mels, ffn = c["d_model"], c["num_mel_bins"], c["encoder_ffn_dim"]
        block, attention = "encoder.layers.{}.", "self_attn"
        names = {"encoder.conv1": (d, mels, 3), "encoder.conv2": (d, d, 3)}
        names |= {"encoder.layer_norm": (d,)}
        inner = {"self_attn_layer_norm": (d,), "final_layer_norm": (d,)}
        inner |= {"fc1": (ffn, d), "fc2": (d, ffn)}
        layers, biased = c["encoder_layers"], {"q_proj", "v_proj", "out_proj"}
    else:
        d, ffn, stable = c["hidden_size"], c["intermediate_size"], "conv_bias" in c
        block, attention = "encoder.layers.{}.", "attention"
        names = {"feature_projection.layer_norm": (512,), "encoder.layer_norm": (d,)}
        names |= {"feature_projection.projection": (d, 512)}
        for i, k in enumerate((10, 3, 3, 3, 3, 2, 2)):
            conv = f"feature_extractor.conv_layers.{i}."
            names[conv + "conv"] = (512, 512 if i else 1, k)
            if stable or i == 0:
                names[conv + "layer_norm"] = (512,)
        inner = {"layer_norm": (d,), "final_layer_norm": (d,)}
        inner |= {"feed_forward.intermediate_dense": (ffn, d)}
        inner |= {"feed_forward.output_dense": (d, ffn)}
        layers, biased = c["num_hidden_layers"], {"q_proj", "k_proj", "v_proj", "out_proj"}
    for i in range(layers):
        names |= {block.format(i) + key: shape for key, shape in inner.items()}
        for key in ("q_proj", "k_proj", "v_proj", "out_proj"):
            names[f"{block.format(i)}{attention}.{key}"] = (d, d)
    found = {}
    for key, shape in names.items():
        found[f"{key}.weight"] = shape
        bare = key.endswith(".conv") and not (name == "hubert_stable")
        if not bare and (not key.endswith("_proj") or key.rsplit(".", 1)[1] in biased):
            found[f"{key}.bias"] = shape[:1]
    if name.startswith("hubert"):
        position = "encoder.pos_conv_embed.conv."
        found[position + "bias"] = (d,)
        found[position + "parametrizations.weight.original0"] = (1, 1, 128)
        found[position + "parametrizations.weight.original1"] = (d, d // 16, 128)
    return found


def weights(name):
    """{transformers' name: float32}, drawn so that every layer matters, but positions."""
    rng = np.random.default_rng(0)
    made = {}
    for key, shape in sorted(shapes(name).items()):
        values = rng.normal(size=shape)
        if len(shape) > 1:
            values *= 1.5 / np.sqrt(np.prod(shape[1:]))
        elif "norm" in key and key.endswith("weight"):
            values = 1 + 0.3 * values
        else:
            values *= 0.1
        if key.endswith("original0"):
            values = 1 + 0.3 * np.abs(rng.normal(size=shape))
        made[key] = values.astype(np.float32)
    return made


def sound(seconds=SECONDS):
    """Noise that swells: float32 [n] at 16 kHz, not of mean 0."""
    rng = np.random.default_rng(1)
    n = round(16000 * seconds)
    return (rng.normal(size=n) * np.linspace(0.02, 0.3, n) + 0.05).astype(np.float32)


def relative(ours, theirs):
    """Greatest difference over greatest value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def whisper_inputs(samples, config):
    """transformers' own log-mel [1 mels 2t] of a sound, filled up to the window."""
    import transformers

    extractor = transformers.WhisperFeatureExtractor(
        config.num_mel_bins, chunk_length=config.max_source_positions // 50
    )
    return extractor(samples, sampling_rate=16000, return_tensors="pt")["input_features"]


def hubert_inputs(samples):
    """transformers' normalised waveform [1 n]."""
    import transformers

    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    return extractor(samples, sampling_rate=16000, return_tensors="pt")["input_values"]


def theirs(kind, numbers, tensors=None):
    """(transformers' model, its tensors); random weights without `tensors`."""
    import torch
    import transformers

    torch.manual_seed(0)
    if kind.startswith("whisper"):
        config = transformers.WhisperConfig(**numbers, decoder_layers=1, vocab_size=60000)
        model = transformers.models.whisper.modeling_whisper.WhisperEncoder(config).eval()
        prefix = "encoder."
    else:
        config = transformers.HubertConfig(**numbers)
        model = transformers.HubertModel(config).eval()
        prefix = ""
    if tensors is not None:
        state = {k.removeprefix(prefix): torch.from_numpy(v) for k, v in tensors.items()}
        missing, unknown = model.load_state_dict(state, strict=False)
        left = {"embed_positions.weight", "masked_spec_embed"}
        assert not unknown and set(missing) <= left, (missing, unknown)
    return model, {prefix + k: v.numpy() for k, v in model.state_dict().items()}


def run(kind, model, samples):
    """transformers' last hidden state [t width] of samples, as its own preprocessing takes them.

    HuBERT gets the mirrored margins that our token grid asks for (swaptalk_jax/sound.py).
    """
    import torch

    with torch.no_grad():
        if kind.startswith("whisper"):
            return model(whisper_inputs(samples[160:], model.config)).last_hidden_state[0].numpy()
        values = hubert_inputs(samples)[0].numpy()
        tokens = -(-len(samples) // 320)
        padded = np.pad(values, (40, 40 + tokens * 320 - len(samples)), "reflect")
        return model(torch.from_numpy(padded[None])).last_hidden_state[0].numpy()


def ours(kind, tensors, samples, window=None):
    """Our features [t width] from a file that holds the tensors."""
    from safetensors.numpy import save_file

    from swaptalk_jax.pretrained import hubert, whisper
    from swaptalk_jax.sound import Features

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.safetensors"
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path)
        is_whisper = kind.startswith("whisper")
        params, fields = (whisper if is_whisper else hubert).read(path)
    config = {
        "network": "WhisperEncoder" if is_whisper else "Hubert",
        "model": {"speech": fields | {"output": None}},  # the last, as theirs
    }
    features = Features(kind, (params, config))
    if window:
        features._function.window = window
    return features(samples)


def main():
    """Prints the relative error of each network, and writes the goldens."""
    kept = {}
    for name, numbers in SMALL.items():
        model, tensors = theirs(name, numbers, weights(name))
        result = run(name, model, sound())
        window = 50 * SECONDS if name.startswith("whisper") else None
        error = relative(ours(name, tensors, sound(), window), result[: 50 * SECONDS])
        print(f"{name}, reduced: relative error {error:.1e}", flush=True)
        kept[name] = result[::EVERY].astype(np.float32)
    GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN, **kept)
    print(f"{GOLDEN}: {GOLDEN.stat().st_size / 1000:.0f} KB")

    for name, numbers in TRUE.items():
        if "large" in name and "--large" not in sys.argv:
            continue
        model, tensors = theirs(name, numbers)
        samples = sound(10)
        error = relative(ours(name, tensors, samples), run(name, model, samples)[:500])
        print(f"{name}, true size, random weights: relative error {error:.1e}", flush=True)

    for argument in sys.argv[1:]:
        if argument.startswith("--whisper="):
            real(argument.removeprefix("--whisper="))


def real(path):
    """A real Whisper tiny's file (CTranslate2) in both."""
    import torch

    from swaptalk_jax.pretrained import whisper
    from swaptalk_jax.sound import Features

    renamed = {
        key.removeprefix("encoder."): torch.from_numpy(np.array(value, np.float32))
        for key, value in whisper._tensors(path).items()
    }
    pairs = {"blocks": "layers", "ln_post": "layer_norm", "attn_ln": "self_attn_layer_norm"}
    pairs |= {"mlp_ln": "final_layer_norm", "mlp.0": "fc1", "mlp.2": "fc2"}
    pairs |= {"attn.query": "self_attn.q_proj", "attn.key": "self_attn.k_proj"}
    pairs |= {"attn.value": "self_attn.v_proj", "attn.out": "self_attn.out_proj"}
    state = {}
    for key, value in renamed.items():
        for ours_, theirs_ in pairs.items():
            key = key.replace(ours_, theirs_)
        if not key.endswith("k_proj.bias") and key != "positional_embedding":
            state[key] = value
    model, _ = theirs("whisper", TRUE["whisper tiny"])
    missing, unknown = model.load_state_dict(state, strict=False)
    assert not unknown and missing == ["embed_positions.weight"], (missing, unknown)
    params, fields = whisper.read(path)
    config = {"network": "WhisperEncoder", "model": {"speech": fields | {"output": None}}}
    for seconds in (3, 10, 30):
        samples = sound(seconds)
        result = run("whisper", model, samples)[: 50 * seconds]
        error = relative(Features("whisper", (params, config))(samples), result)
        print(f"{path}, {seconds} s: relative error {error:.1e}", flush=True)


if __name__ == "__main__":
    main()
