"""Face shards -> code shards: `python -m swaptalk_jax.encode --config=configs/vqgan.py --out=D`.

Reads `frames`, `clips` and `triples` below config.data.root; writes `codes` and `swaps` below D:
the VQGAN's codes, audio features at 50 Hz, and the recogniser's embeddings, all constants of the
later stages. The VQGAN is the one that this config trained, the recogniser its frozen one.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from data_pipelines import audio, records
from swaptalk_jax import backend, checkpoints, progress, sharding, upstream, writer
from swaptalk_jax.stages import frozen
from swaptalk_jax.stages.images import to_float

TELL_EVERY = 10.0  # seconds between two lines of progress


class Encoder:
    """Images -> codes and recogniser embeddings, batch by batch over the mesh."""

    def __init__(self, config, batch_size):
        dtype = backend.compute_dtype(config.precision)
        self.mesh = sharding.make_mesh(config.mesh)
        self.batch_size = -(-batch_size // self.mesh.size) * self.mesh.size
        vqgan = frozen.Network(config.workdir, "vqgan", dtype)
        recogniser = frozen.Network(config.frozen.recogniser, "recogniser", dtype)
        params = {"vqgan": vqgan.params(), "recogniser": recogniser.params()}
        self.fingerprint = checkpoints.fingerprint(params["vqgan"])
        self.params = jax.device_put(params, sharding.replicated(self.mesh))

        def encode(params, batch):
            image = to_float(batch["image"])
            z = vqgan.apply(params["vqgan"], image, method="encode")
            codes = vqgan.apply(params["vqgan"], z, method="nearest")
            return codes, recogniser.apply(params["recogniser"], image)

        self.encode = backend.jit(encode)

    def __call__(self, read, count, name):
        """read(i) -> uint8 [h w 3], i < count; returns codes uint16 [n h w], embeddings [n e]."""
        codes, embeddings, began, told = [], [], time.time(), time.time()
        with ThreadPoolExecutor(8) as pool:
            for first in range(0, count, self.batch_size):
                # The last batch is filled with its own last image: one shape, one compilation.
                rows = [min(first + i, count - 1) for i in range(self.batch_size)]
                batch = {"image": np.stack(list(pool.map(read, rows)))}
                c, e = jax.device_get(self.encode(self.params, sharding.place(batch, self.mesh)))
                keep = min(self.batch_size, count - first)
                codes.append(c[:keep].astype(np.uint16))
                embeddings.append(e[:keep])
                if time.time() - told > TELL_EVERY or first + keep == count:
                    told = time.time()
                    rate = (first + keep) / (told - began)
                    left = int((count - first - keep) / rate)
                    print(
                        f"[encode] {name}: {first + keep}/{count} images, {rate:.0f}/s, "
                        f"{left // 60}:{left % 60:02} left",
                        flush=True,
                    )
        return np.concatenate(codes), np.concatenate(embeddings)


def reader(source, field):
    """i -> the decoded image uint8 [h w 3] of a record's field."""
    return lambda i: records.decode_image(source[i][field])


def normalised(x):
    """x / |x| along the last axis."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-6)


def encode_set(config, out, batch_size):
    """Writes `codes` and `swaps` of both splits below `out`; returns the VQGAN's fingerprint."""
    root, encoder = config.data.root, Encoder(config, batch_size)
    features, width = audio.FEATURES[config.data.features]
    known = records.metadata(root, "frames")
    frames = {
        split: records.source(root, "frames", split) for split in records.splits(root, "frames")
    }
    encoded = {
        split: encoder(reader(source, "image"), len(source), f"frames, {split}")
        for split, source in frames.items()
    }
    grid = next(iter(encoded.values()))[0].shape[1:]
    metadata = {
        "identities": known["identities"],
        "fingerprint": encoder.fingerprint,
        "vqgan": config.workdir,
        "grid": list(grid),
        "audio": config.data.features,
        "audio_width": width,
        "embedding": int(next(iter(encoded.values()))[1].shape[1]),
    }
    with records.Writer(out, "codes", metadata) as shard:
        for split, (codes, embeddings) in encoded.items():
            for clip in map(
                records.source(root, "clips", split).__getitem__, range_of(root, "clips", split)
            ):
                rows = slice(clip["first"], clip["first"] + clip["frames"])
                sound = features(clip["audio"].astype(np.float32) / 32768.0)
                shard.write(
                    split,
                    {
                        "name": clip["name"],
                        "identity": clip["identity"],
                        "first": clip["first"],
                        "codes": codes[rows],
                        "features": sound[: 2 * clip["frames"]].astype(np.float16),
                        "embedding": normalised(embeddings[rows].mean(0)),
                    },
                )
    with records.Writer(out, "swaps", metadata) as shard:
        for split, (codes, embeddings) in encoded.items():
            if split not in records.splits(root, "triples"):
                continue
            triples = records.source(root, "triples", split)
            results = encoder(reader(triples, "result"), len(triples), f"triples, {split}")
            for i, (result, id_result) in enumerate(zip(*results, strict=True)):
                triple = triples[i]
                shard.write(
                    split,
                    {
                        "source": codes[triple["source"]],
                        "target": codes[triple["target"]],
                        "result": result,
                        "id_source": embeddings[triple["source"]],
                        "id_result": id_result,
                        "source_identity": triple["source_identity"],
                        "target_identity": triple["target_identity"],
                    },
                )
    return encoder.fingerprint


def range_of(root, kind, split):
    """Indices of the records of a split."""
    return range(sum(records.splits(root, kind)[split]))


def main(_):
    """Command line."""
    progress.quiet()
    config, out = flags.FLAGS.config, Path(flags.FLAGS.out)
    own = {
        "path": f"{config.workdir}/{checkpoints.PARAMS}",
        "command": upstream.train_command(config),
    }
    try:
        upstream.prepare(config, own)
        done = out / "encode.json"
        wanted = checkpoints.fingerprint(checkpoints.load_network(config.workdir)[0]["vqgan"])
        if done.exists() and json.loads(done.read_text()).get("fingerprint") == wanted:
            print(f"[encode] {out} already holds the codes of VQGAN {wanted}; nothing to do")
            return
        made = encode_set(config, out, flags.FLAGS.batch_size)
        writer.replace(done, json.dumps({"fingerprint": made, "vqgan": config.workdir}).encode())
    except (checkpoints.CheckpointError, records.RecordError) as error:
        raise SystemExit(f"[encode] {error}") from error


if __name__ == "__main__":
    # Not at the top: programs that import this file have a --config of their own.
    config_flags.DEFINE_config_file("config")
    flags.DEFINE_string("out", None, "Folder for the code shards.")
    flags.DEFINE_integer("batch_size", 64, "Frames a step, over all devices.")
    flags.mark_flags_as_required(["config", "out"])
    app.run(main)
