"""Images -> codes and recogniser embeddings, batch by batch."""

from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from data_pipelines.records import reader
from swaptalk_jax import backend
from swaptalk_jax.models.latent import to_float
from swaptalk_jax.training import sharding
from swaptalk_jax.weights import finished, store

# Images a step and device. A CPU keeps what it works on in its caches: there 4 images of 64 px take
# half the time each that 64 of them do.
BATCH_SIZE = {"cpu": 4, "gpu": 64, "tpu": 64}


class Encoder:
    """Images -> codes and recogniser embeddings, batch by batch over this host's devices.

    batch_size: images a step, over all devices of a host; 0 takes BATCH_SIZE on each.
    """

    def __init__(self, config, batch_size):
        dtype = backend.compute_dtype(config.precision)
        # Hosts work apart, each on shards of its own: nothing waits for the slowest of them.
        self.mesh = sharding.local_mesh()
        batch_size = batch_size or BATCH_SIZE.get(jax.default_backend(), 64) * self.mesh.size
        self.batch_size = -(-batch_size // self.mesh.size) * self.mesh.size
        vqgan = finished.FinishedNetwork(config.workdir, "vqgan", dtype)
        recogniser = finished.FinishedNetwork(config.frozen.recogniser, "recogniser", dtype)
        params = {"vqgan": vqgan.params(), "recogniser": recogniser.params()}
        self.fingerprints = {name: store.fingerprint(params[name]) for name in params}
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
                result = self.encode(self.params, sharding.place(batch, self.mesh))
                ahead.append((result, min(self.batch_size, count - first)))
                if len(ahead) > 1:  # only now: one batch is always queued
                    collect(*ahead.pop(0))
        if ahead:
            collect(*ahead.pop())
        if not codes:
            return np.empty((0, *self.grid), np.uint16), np.empty((0, self.embedding), np.float32)
        return np.concatenate(codes), np.concatenate(embeddings)


def _image_shape(config):
    size = reader.metadata(config.data.root, "frames")["size"]
    return size, size


def normalised(x):
    """x / |x| along the last axis."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-6)
