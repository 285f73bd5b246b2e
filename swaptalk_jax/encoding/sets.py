"""The sets of codes and swaps in the making, shard by shard."""

import hashlib
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from data_pipelines import files
from data_pipelines.records import kinds, reader, shards
from swaptalk_jax.encoding.encoder import Encoder, normalised
from swaptalk_jax.encoding.latents import Latents
from swaptalk_jax.sound import Features
from swaptalk_jax.training import agreement, processes, upstream

DONE = "encode.json"  # below the sets: that both are whole, and of what they were made
TELL_EVERY = 10.0  # seconds between two lines of progress


def encode(config, out, batch_size):
    """Makes the sets `codes` and `swaps` below `out`, unless they stand already.

    config: of the VQGAN's stage; what is missing for it is built or asked for (upstream.prepare).
    batch_size: frames a step, over all devices of a host; 0: as encoder.BATCH_SIZE says. Raises
    CheckpointError, RecordError and RunError.
    """
    agreement.check(config)
    upstream.prepare(config, "sound", config.stage)
    agreement.check_upstream(config)
    encoding, done = Encoding(config, out, batch_size), Path(out) / DONE
    if done.exists() and json.loads(done.read_text()) == encoding.metadata:
        print(f"[encode] {out} already holds these codes; nothing to do")
        return
    encoding.run()
    if jax.process_index() == 0:
        files.replace(done, json.dumps(encoding.metadata, indent=1).encode())


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


def plan(config, encoder, features):
    """Metadata of the sets: what they are, and of which data and networks they were made."""
    root = Path(config.data.root)
    made = hashlib.sha256()
    for kind in ("frames", "clips", "triples"):
        for name in ("dataset_info.json", "metadata.json"):
            path = root / kind / kinds.VERSION / name
            made.update(path.read_bytes() if path.exists() else b"")
    return {
        "identities": reader.metadata(root, "frames")["identities"],
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
        self.features = Features(config.data.features)
        self.metadata = plan(config, self.encoder, self.features)
        self.codes = shards.Shards(out, "codes", self.metadata)
        self.swaps = shards.Shards(out, "swaps", self.metadata)
        self.scratch = self.out / self.codes.staging.name.replace(".codes", ".latents")
        self.clips = {
            split: reader.source(self.root, "clips", split)
            for split in reader.splits(self.root, "clips")
        }
        self.latents = {
            split: Latents(self.scratch, split, clips) for split, clips in self.clips.items()
        }
        # {split: triples of each shard}
        made = (self.root / "triples").exists()
        self.triples = reader.splits(self.root, "triples") if made else {}

    def run(self):
        """Makes what is missing, then publishes both sets."""
        host, hosts = jax.process_index(), jax.process_count()
        clips = {split: len(known.clips) for split, known in self.latents.items()}
        triples = {split: len(lengths) for split, lengths in self.triples.items()}
        codes = _missing(self.codes, clips, host, hosts)
        swaps = _missing(self.swaps, triples, host, hosts)
        images = sum(self._frames(*shard) for shard in codes)
        self.tell = _Progress(images + sum(self.triples[split][i] for split, i in swaps))
        processes.meet()
        self._write(self.codes, codes, self._encoded_clips)
        processes.meet()  # swaps take the codes of all
        self._write(self.swaps, swaps, self._encoded_triples)
        processes.meet()
        if host == 0:
            self.codes.publish(clips)
            if triples:
                self.swaps.publish(triples)
            shutil.rmtree(self.scratch, ignore_errors=True)
        processes.meet()

    def _frames(self, split, shard):
        """Number of frames of a shard of clips."""
        known = self.latents[split]
        last = self.clips[split][known.clips[shard][-1]]
        return int(last["first"]) + int(last["frames"]) - known.firsts[shard]

    def _write(self, made, missing, encoded):
        """Writes shards of a set while the next one is encoded; encoded: (split, shard) -> records.

        One at a time: a shard's images are let go before those of the one after the next come.
        """
        writing = None
        with ThreadPoolExecutor(1) as writer:
            for shard in missing:
                records = encoded(*shard)
                if writing:
                    writing.result()
                writing = writer.submit(made.write, *shard, records)
            if writing:
                writing.result()

    def _encoded_clips(self, split, shard):
        """The records of a shard of clips, all of its images encoded."""
        known, clips = self.latents[split], self.clips[split]
        frames, first = reader.source(self.root, "frames", split), known.firsts[shard]
        codes, embeddings = self.encoder(
            lambda i: kinds.decode_image(frames[first + i]["image"]),
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

        return made()

    def _encoded_triples(self, split, shard):
        """The records of a shard of triples, all of its images encoded."""
        first, count = sum(self.triples[split][:shard]), self.triples[split][shard]
        triples, known = reader.source(self.root, "triples", split), self.latents[split]
        results = self.encoder(
            lambda i: kinds.decode_image(triples[first + i]["result"]), count, self.tell
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

        return made()


def _missing(made, counts, host, hosts):
    """(split, shard) of a host's shards that a set in the making lacks; counts: {split: shards}.

    Which shards are a host's does not depend on what is finished: another host may be ahead.
    """
    known = [(split, i) for split, count in counts.items() for i in range(count)]
    return [shard for shard in known[host::hosts] if not made.finished(*shard)]
