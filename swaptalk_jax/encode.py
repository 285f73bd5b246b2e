"""Face shards -> code shards: `python -m swaptalk_jax.encode --config=configs/vqgan.py --out=D`.

Reads `frames`, `clips` and `triples` below config.data.root; writes `codes` and `swaps` below D:
the VQGAN's codes, audio features at 50 Hz, and the recogniser's embeddings, all constants of the
later stages. The VQGAN is the one that this config trained, the recogniser its frozen one.

Finished shards are kept: stopped, the same command goes on where it stopped. With several
processes (--config.distributed=True) each host makes its own share of the shards on its devices.
"""

import bisect
import hashlib
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from absl import app, flags
from jax.experimental import multihost_utils
from ml_collections import config_flags

from data_pipelines import files, records, shards
from swaptalk_jax import backend, checkpoints, progress, sharding, speech, upstream, writer
from swaptalk_jax.stages import frozen
from swaptalk_jax.stages.images import to_float

TELL_EVERY = 10.0  # seconds between two lines of progress
DONE = "encode.json"


class Encoder:
    """Images -> codes and recogniser embeddings, batch by batch over this host's devices."""

    def __init__(self, config, batch_size):
        dtype = backend.compute_dtype(config.precision)
        # Hosts work apart, each on shards of its own: nothing waits for the slowest of them.
        self.mesh = sharding.local_mesh()
        self.batch_size = -(-batch_size // self.mesh.size) * self.mesh.size
        vqgan = frozen.Network(config.workdir, "vqgan", dtype)
        recogniser = frozen.Network(config.frozen.recogniser, "recogniser", dtype)
        params = {"vqgan": vqgan.params(), "recogniser": recogniser.params()}
        self.fingerprints = {name: checkpoints.fingerprint(params[name]) for name in params}
        self.params = jax.device_put(params, sharding.replicated(self.mesh))

        def encode(params, batch):
            image = to_float(batch["image"])
            z = vqgan.apply(params["vqgan"], image, method="encode")
            codes = vqgan.apply(params["vqgan"], z, method="nearest")
            return codes, recogniser.apply(params["recogniser"], image)

        self.encode = backend.jit(encode)
        probe = jax.ShapeDtypeStruct((1, *_image_shape(config), 3), np.uint8)
        codes, embedding = jax.eval_shape(encode, self.params, {"image": probe})
        self.grid, self.embedding = codes.shape[1:], embedding.shape[-1]

    def __call__(self, read, count, tell):
        """read(i) -> uint8 [h w 3], i < count; returns codes uint16 [n h w], embeddings [n e].

        tell(n): called with the number of images that became ready.
        """
        codes, embeddings, ahead = [], [], []

        def collect(result, keep):
            c, e = jax.device_get(result)
            codes.append(c[:keep].astype(np.uint16))
            embeddings.append(e[:keep])
            tell(keep)

        with ThreadPoolExecutor(8) as pool:
            for first in range(0, count, self.batch_size):
                # The last batch is filled with its own last image: one shape, one compilation.
                rows = [min(first + i, count - 1) for i in range(self.batch_size)]
                # Read and decoded while the devices are at work on the batch before.
                batch = {"image": np.stack(list(pool.map(read, rows)))}
                if ahead:
                    collect(*ahead.pop())
                result = self.encode(self.params, sharding.place(batch, self.mesh))
                ahead.append((result, min(self.batch_size, count - first)))
        if ahead:
            collect(*ahead.pop())
        if not codes:
            return np.empty((0, *self.grid), np.uint16), np.empty((0, self.embedding), np.float32)
        return np.concatenate(codes), np.concatenate(embeddings)


def _image_shape(config):
    size = records.metadata(config.data.root, "frames")["size"]
    return size, size


class Latents:
    """Codes and embeddings of the frames of a split, kept in files beside the shards of codes.

    A triple names two frames anywhere in the split, whose codes would fill the memory.
    """

    def __init__(self, folder, split, clips):
        """folder: of the files; clips: records of the split."""
        self.folder, self.split = folder, split
        lengths = records.splits(clips.root, "clips")[split]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        self.clips = [range(a, b) for a, b in zip(starts[:-1], starts[1:], strict=True)]
        self.firsts = [int(clips[own[0]]["first"]) for own in self.clips]
        self._open = {}

    def path(self, name, shard):
        """Where codes or embeddings of the frames of a shard of clips lie, float or uint16 .npy."""
        return self.folder / f"{self.split}-{shard}-{name}.npy"

    def save(self, shard, codes, embeddings):
        """Keeps what the encoder made of the frames of a shard of clips."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, array in (("codes", codes), ("embeddings", embeddings)):
            with files.replacing(self.path(name, shard)) as part:
                np.save(part, array)

    def __getitem__(self, frame):
        """(codes [h w], embedding [e]) of a frame's index in its split."""
        shard = bisect.bisect_right(self.firsts, int(frame)) - 1
        if shard not in self._open:
            self._open[shard] = [
                np.load(self.path(name, shard), mmap_mode="r") for name in ("codes", "embeddings")
            ]
        return [np.array(array[int(frame) - self.firsts[shard]]) for array in self._open[shard]]


class _Progress:
    """How many images are encoded, how fast, how long still; a line every few seconds."""

    def __init__(self, total):
        self.total, self.done, self.began, self.told = total, 0, time.time(), time.time()

    def __call__(self, count):
        self.done += count
        if time.time() - self.told < TELL_EVERY and self.done < self.total:
            return
        self.told = time.time()
        rate = self.done / max(self.told - self.began, 1e-3)
        left = int((self.total - self.done) / rate)
        print(
            f"[encode] {self.done}/{self.total} images, {rate:.0f}/s, "
            f"{left // 60}:{left % 60:02} left",
            flush=True,
        )


def normalised(x):
    """x / |x| along the last axis."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-6)


def plan(config, encoder, features):
    """Metadata of the sets: what they are, and of which data and networks they were made."""
    root = Path(config.data.root)
    made = hashlib.sha256()
    for kind in ("frames", "clips", "triples"):
        for name in ("dataset_info.json", "metadata.json"):
            path = root / kind / records.VERSION / name
            made.update(path.read_bytes() if path.exists() else b"")
    return {
        "identities": records.metadata(root, "frames")["identities"],
        "fingerprint": encoder.fingerprints["vqgan"],
        "recogniser": encoder.fingerprints["recogniser"],
        "data": made.hexdigest()[:16],
        "vqgan": config.workdir,
        "grid": list(encoder.grid),
        "audio": features.name,
        "audio_fingerprint": features.fingerprint,
        "audio_width": features.width,
        "embedding": encoder.embedding,
    }


class Encoding:
    """The two sets in the making, shard by shard."""

    def __init__(self, config, out, batch_size):
        self.root, self.out = Path(config.data.root), Path(out)
        self.encoder = Encoder(config, batch_size)
        self.features = speech.Features(config.data.features)
        self.metadata = plan(config, self.encoder, self.features)
        self.codes = shards.Shards(out, "codes", self.metadata)
        self.swaps = shards.Shards(out, "swaps", self.metadata)
        self.scratch = self.out / self.codes.staging.name.replace(".codes", ".latents")
        self.clips = {
            split: records.source(self.root, "clips", split)
            for split in records.splits(self.root, "clips")
        }
        self.latents = {
            split: Latents(self.scratch, split, clips) for split, clips in self.clips.items()
        }
        # {split: triples of each shard}
        made = (self.root / "triples").exists()
        self.triples = records.splits(self.root, "triples") if made else {}

    def run(self):
        """Makes what is missing, then publishes both sets."""
        host, hosts = jax.process_index(), jax.process_count()
        clips = {split: len(known.clips) for split, known in self.latents.items()}
        triples = {split: len(lengths) for split, lengths in self.triples.items()}
        codes = _missing(self.codes, clips, host, hosts)
        swaps = _missing(self.swaps, triples, host, hosts)
        images = sum(self._frames(*shard) for shard in codes)
        self.tell = _Progress(images + sum(self.triples[split][i] for split, i in swaps))
        for shard in codes:
            self._write_codes(*shard)
        _barrier("codes")
        for shard in swaps:
            self._write_swaps(*shard)
        _barrier("swaps")
        if host == 0:
            self.codes.publish(clips)
            if triples:
                self.swaps.publish(triples)
            shutil.rmtree(self.scratch, ignore_errors=True)
        _barrier("published")

    def _frames(self, split, shard):
        """Number of frames of a shard of clips."""
        known = self.latents[split]
        last = self.clips[split][known.clips[shard][-1]]
        return int(last["first"]) + int(last["frames"]) - known.firsts[shard]

    def _write_codes(self, split, shard):
        known, clips = self.latents[split], self.clips[split]
        frames, first = records.source(self.root, "frames", split), known.firsts[shard]
        codes, embeddings = self.encoder(
            lambda i: records.decode_image(frames[first + i]["image"]),
            self._frames(split, shard),
            self.tell,
        )
        known.save(shard, codes, embeddings)

        def made():
            for clip in map(clips.__getitem__, known.clips[shard]):
                start, count = int(clip["first"]) - first, int(clip["frames"])
                rows = slice(start, start + count)
                sound = self.features(clip["audio"].astype(np.float32) / 32768.0)
                yield {
                    "name": clip["name"],
                    "identity": clip["identity"],
                    "first": clip["first"],
                    "codes": codes[rows],
                    "features": sound[: 2 * count].astype(np.float16),
                    "embedding": normalised(embeddings[rows].mean(0)),
                }

        self.codes.write(split, shard, made())

    def _write_swaps(self, split, shard):
        first, count = sum(self.triples[split][:shard]), self.triples[split][shard]
        triples, known = records.source(self.root, "triples", split), self.latents[split]
        results = self.encoder(
            lambda i: records.decode_image(triples[first + i]["result"]), count, self.tell
        )

        def made():
            for i, (result, id_result) in enumerate(zip(*results, strict=True)):
                triple = triples[first + i]
                source, id_source = known[triple["source"]]
                yield {
                    "source": source,
                    "target": known[triple["target"]][0],
                    "result": result,
                    "id_source": id_source,
                    "id_result": id_result,
                    "source_identity": triple["source_identity"],
                    "target_identity": triple["target_identity"],
                }

        self.swaps.write(split, shard, made())


def _missing(made, counts, host, hosts):
    """(split, shard) of a host's shards that a set in the making lacks; counts: {split: shards}.

    Which shards are a host's does not depend on what is finished: another host may be ahead.
    """
    known = [(split, i) for split, count in counts.items() for i in range(count)]
    return [shard for shard in known[host::hosts] if not made.finished(*shard)]


def _barrier(name):
    """Waits for all hosts, if there are several."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def main(_):
    """Command line."""
    progress.quiet()
    config, out = flags.FLAGS.config, Path(flags.FLAGS.out)
    if config.distributed:
        jax.distributed.initialize()
    own = {
        "path": f"{config.workdir}/{checkpoints.PARAMS}",
        "command": upstream.train_command(config),
    }
    try:
        upstream.prepare(config, own)
        encoding = Encoding(config, out, flags.FLAGS.batch_size)
        done = out / DONE
        if done.exists() and json.loads(done.read_text()) == encoding.metadata:
            print(f"[encode] {out} already holds these codes; nothing to do")
            return
        encoding.run()
        if jax.process_index() == 0:
            writer.replace(done, json.dumps(encoding.metadata, indent=1).encode())
    except (checkpoints.CheckpointError, records.RecordError) as error:
        raise SystemExit(f"[encode] {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("[encode] stopped; the same command goes on where it stopped") from None


if __name__ == "__main__":
    # Not at the top: programs that import this file have a --config of their own.
    config_flags.DEFINE_config_file("config")
    flags.DEFINE_string("out", None, "Folder for the code shards.")
    flags.DEFINE_integer("batch_size", 64, "Frames a step, over all devices of a host.")
    flags.mark_flags_as_required(["config", "out"])
    app.run(main)
