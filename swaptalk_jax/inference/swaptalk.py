"""The trained networks of a bundle as plain functions of arrays: what infer and evaluate share.

pipe = SwapTalk("runs/tiny/bundle")
source, target = pipe.encode(faces)                 # uint8 [2 s s 3] -> z [2 h w d]
swapped = pipe.swap(source, target[None])           # source's identity, target's all else
spoken = pipe.sync(swapped, reference, sound)       # lips that say the sound
pictures = pipe.decode(spoken)                      # uint8 [1 s s 3]
"""

import dataclasses
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swaptalk_jax import backend, sound
from swaptalk_jax.errors import CheckpointError
from swaptalk_jax.models import expert, registry
from swaptalk_jax.models.generator import Generator
from swaptalk_jax.models.latent import halves, to_float
from swaptalk_jax.weights.bundle import load

# Flags of infer and evaluate: name, default, values, meaning.
WARP_FLAG = (
    "warp",
    "auto",
    ["auto", "always", "never"],
    "Move the reference's lips to the frame's pose; auto: the bundle's rule, never: the paper's.",
)
QUANTIZE_FLAG = (
    "quantize",
    "auto",
    ["auto", "yes", "no"],
    "Put swapped faces on codes before the sync; auto: the bundle's rule, no: the paper's.",
)


@dataclasses.dataclass(frozen=True)
class Rules:
    """What inference does between the modules, where it may do more than the paper does.

    warp: when the reference's lips are moved to the frame's pose, as in training: "self", where the
    reference is another frame (self-driven); "always"; or "never", the paper's rule. quantize:
    whether a swapped face is put on codes before its lips are made, as sync's training has it; in
    the paper it isn't. A bundle names the rules of its size (`inference` in config.json); without
    them, these.
    """

    warp: str = "self"
    quantize: bool = True

    def changed(self, warp: str = "auto", quantize: str = "auto") -> "Rules":
        """These rules with a user's choices: warp auto | always | never, quantize auto | yes | no.

        "auto" leaves a rule as it is.
        """
        return Rules(
            self.warp if warp == "auto" else warp,
            self.quantize if quantize == "auto" else quantize == "yes",
        )

    def warps(self, own_reference: bool) -> bool:
        """Whether to warp; own_reference: each frame's own lips are the reference."""
        return self.warp == "always" or (self.warp == "self" and not own_reference)


class SwapTalk:
    """A bundle's networks, ready to run. Every method takes and returns NumPy arrays.

    n examples are worked off in batches of `batch_size`, the last one filled up, so each function
    is compiled once. Images are uint8 [n s s 3] of `size` pixels, z are VQ-embeddings float32
    [n h w d]; a z without n stands for every example. `features` turns sound into what `sync` and
    `in_sync` take (sound.Features). `rules` are the bundle's, and may be replaced.
    Raises CheckpointError where the bundle is not whole.
    """

    def __init__(
        self, bundle: str | os.PathLike, batch_size: int = 16, precision: str = "auto"
    ) -> None:
        self.folder = bundle
        params, self.config = load(bundle)
        network = params.pop("speech", None)
        self.batch_size = batch_size
        self.size = self.config["image_size"]
        self.audio = self.config["audio"]  # features, width, context, window
        self.rules = Rules(**self.config.get("inference", {}))
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
        self._generator = Generator(self._models["warp"], self._models["unet"])
        self._jitted: dict[str, Any] = {}

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Images -> z: encoded, and each cell put on its nearest code (paper eq. 1, 2)."""
        return self._run(self._encode, images)

    def lookup(self, codes: np.ndarray) -> np.ndarray:
        """Codes, any integer dtype [n h w] -> z."""
        return self._run(self._lookup, codes)

    def quantize(self, z: np.ndarray) -> np.ndarray:
        """Each cell of z put on its nearest code."""
        return self._run(self._quantize, z)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """z -> images."""
        return self._run(self._decode, z)

    def swap(
        self, source: np.ndarray, target: np.ndarray, quantize: bool | None = None
    ) -> np.ndarray:
        """z of the source, z of the target -> z with the source's identity, all else the target's.

        Eq. 7. quantize puts each cell on its nearest code, which is what sync was trained on; None:
        as `rules` say.
        """
        quantize = self.rules.quantize if quantize is None else quantize
        n = max((len(z) for z in (source, target) if z.ndim == 4), default=1)
        z = self._run(self._swap, _repeated(source, n), _repeated(target, n))
        return self.quantize(z) if quantize else z

    def sync(
        self, target: np.ndarray, reference: np.ndarray, audio: np.ndarray, warp: bool | None = None
    ) -> np.ndarray:
        """z of the target with lips for the sound (eq. 11-13); its upper half stays as it is.

        reference: z of the face whose lips are changed; audio float32 [n 2*context width]: rows of
        tokens.context_windows. warp first moves the reference's lips to the target's pose; without
        it they are taken as they stand, which is the paper's rule for inference; None: as `rules`
        say of a reference that is another frame.
        """
        warp = self.rules.warps(own_reference=False) if warp is None else warp
        n = len(audio)
        sync = self._sync_warped if warp else self._sync_unwarped
        return self._run(sync, _repeated(target, n), _repeated(reference, n), audio)

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Images -> the recogniser's identity embeddings float32 [n e], of length 1."""
        return self._run(self._embed, images)

    def in_sync(self, z: np.ndarray, audio: np.ndarray) -> np.ndarray:
        """The expert's cosine [n] of lips and sound, in [0, 1]; above 0.5 they belong together.

        z [n window h w d]: consecutive frames at 25 fps; audio float32 [n 2*window width]: the
        features of just these frames.
        """
        return self._run(self._in_sync, z, audio)

    def _run(self, function, *arrays):
        """function(params, *arrays), jitted, over batches of one size along the first axis."""
        jitted = self._jitted.setdefault(function.__name__, backend.jit(function))
        given = functools.partial(jitted, self._params)
        return backend.in_batches(given, self.batch_size, *arrays)

    def _apply(self, name, params, *args, **kwargs):
        if name not in self._models:
            raise CheckpointError(
                f"{self.folder}: was exported for infer alone, without its {name}; export it again"
                " without --for_infer"
            )
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
        return self._generator.apply(params, target, reference, audio)

    def _sync_unwarped(self, params, target, reference, audio):
        return self._generator.apply(params, target, reference, audio, warp=False)

    def _embed(self, params, images):
        return self._apply("recogniser", params, to_float(images))

    def _in_sync(self, params, z, audio):
        return expert.in_sync(*self._apply("expert", params, halves(z)[1], audio))


def _repeated(z, n):
    """[h w d] -> [n h w d] without a copy; [n h w d] passes."""
    return np.broadcast_to(z, (n, *z.shape)) if z.ndim == 3 else z
