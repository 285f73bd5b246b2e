"""The trained networks of a bundle as plain functions of arrays: what infer and evaluate share.

pipe = SwapTalk("runs/tiny/bundle")
source, target = pipe.encode(faces)                 # uint8 [2 s s 3] -> z [2 h w d]
swapped = pipe.swap(source, target[None])           # source's identity, target's all else
spoken = pipe.sync(swapped, reference, sound)       # lips that say the sound
pictures = pipe.decode(spoken)                      # uint8 [1 s s 3]
"""

import jax
import jax.numpy as jnp
import numpy as np

from swaptalk_jax import backend, sound
from swaptalk_jax.models import expert, registry
from swaptalk_jax.models.latent import halves, join, to_float
from swaptalk_jax.weights.bundle import load


class SwapTalk:
    """A bundle's networks, ready to run. Every method takes and returns NumPy arrays.

    n examples are worked off in batches of `batch_size`, the last one filled up, so each function
    is compiled once. Images are uint8 [n s s 3] of `size` pixels, z are VQ-embeddings float32
    [n h w d]; a z without n stands for every example. `features` turns sound into what `sync` and
    `in_sync` take (speech.Features).
    Raises CheckpointError where the bundle is not whole.
    """

    def __init__(self, bundle, batch_size=16, precision="auto"):
        params, self.config = load(bundle)
        network = params.pop("speech", None)
        self.batch_size = batch_size
        self.size = self.config["image_size"]
        self.audio = self.config["audio"]  # features, width, context, window
        self.features = sound.Features(
            self.audio["features"], network and (network, self.config["speech"])
        )
        dtype = backend.compute_dtype(precision)
        self._params = jax.device_put(params)
        networks = self.config.get("networks", {})  # those that are not our own
        self._models = {
            name: registry.build(name, fields, networks.get(name), dtype=dtype)
            for name, fields in self.config["model"].items()
        }
        self._jitted = {}

    def encode(self, images):
        """Images -> z: encoded, and each cell put on its nearest code (paper eq. 1, 2)."""
        return self._run(self._encode, images)

    def lookup(self, codes):
        """Codes, any integer dtype [n h w] -> z."""
        return self._run(self._lookup, codes)

    def quantize(self, z):
        """Each cell of z put on its nearest code."""
        return self._run(self._quantize, z)

    def decode(self, z):
        """z -> images."""
        return self._run(self._decode, z)

    def swap(self, source, target, quantize=True):
        """z of the source, z of the target -> z with the source's identity, all else the target's.

        Eq. 7. quantize puts each cell on its nearest code, which is what sync was trained on.
        """
        n = max((len(z) for z in (source, target) if z.ndim == 4), default=1)
        z = self._run(self._swap, _repeated(source, n), _repeated(target, n))
        return self.quantize(z) if quantize else z

    def sync(self, target, reference, audio, warp=True):
        """z of the target with lips for the sound (eq. 11-13); its upper half stays as it is.

        reference: z of the face whose lips are changed; audio float32 [n 2*context width]: rows of
        audio.context_windows. warp first moves the reference's lips to the target's pose; without
        it they are taken as they stand, which is the paper's rule for inference.
        """
        n = len(audio)
        sync = self._sync_warped if warp else self._sync_unwarped
        return self._run(sync, _repeated(target, n), _repeated(reference, n), audio)

    def embed(self, images):
        """Images -> the recogniser's identity embeddings float32 [n e], of length 1."""
        return self._run(self._embed, images)

    def in_sync(self, z, audio):
        """The expert's cosine [n] of lips and sound, in [0, 1]; above 0.5 they belong together.

        z [n window h w d]: consecutive frames at 25 fps; audio float32 [n 2*window width]: the
        features of just these frames.
        """
        return self._run(self._in_sync, z, audio)

    def _run(self, function, *arrays):
        """function(params, *arrays), jitted, over batches of one size along the first axis."""
        jitted = self._jitted.setdefault(function.__name__, backend.jit(function))
        results, count = [], len(arrays[0])
        for first in range(0, count, self.batch_size):
            # The last batch is filled with its own last example.
            rows = np.minimum(np.arange(first, first + self.batch_size), count - 1)
            result = jitted(self._params, *(array[rows] for array in arrays))
            results.append(np.asarray(result)[: count - first])
        return np.concatenate(results)

    def _apply(self, name, params, *args, **kwargs):
        return self._models[name].apply({"params": params[name]}, *args, **kwargs)

    def _encode(self, params, images):
        return self._quantize(
            params, self._apply("vqgan", params, to_float(images), method="encode")
        )

    def _quantize(self, params, z):
        codes = self._apply("vqgan", params, z, method="nearest")
        return self._lookup(params, codes)

    def _lookup(self, params, codes):
        return self._apply("vqgan", params, codes, method="lookup")

    def _decode(self, params, z):
        image = self._apply("vqgan", params, z, method="decode")
        return jnp.clip(jnp.rint((image + 1.0) * 127.5), 0, 255).astype(jnp.uint8)

    def _swap(self, params, source, target):
        return self._apply("swap", params, source, target)

    def _sync_warped(self, params, target, reference, audio):
        upper, _ = halves(target)
        reference_upper, reference_lower = halves(reference)
        warped, _ = self._apply("warp", params, upper, reference_upper, reference_lower)
        return join(upper, self._apply("unet", params, warped, audio))

    def _sync_unwarped(self, params, target, reference, audio):
        return join(halves(target)[0], self._apply("unet", params, halves(reference)[1], audio))

    def _embed(self, params, images):
        return self._apply("recogniser", params, to_float(images))

    def _in_sync(self, params, z, audio):
        return expert.in_sync(*self._apply("expert", params, halves(z)[1], audio))


def _repeated(z, n):
    """[h w d] -> [n h w d] without a copy; [n h w d] passes."""
    return np.broadcast_to(z, (n, *z.shape)) if z.ndim == 3 else z
