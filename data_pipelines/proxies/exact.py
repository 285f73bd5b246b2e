"""The proxy swapper of the embedded set: the source's inner face, drawn in the target's head."""

import dataclasses
import functools

from data_pipelines.faces import align
from data_pipelines.synthetic import sampling

# Traits that stay the target's, as with Roop and inswapper: the outline of the head and what lies
# outside of it. So nothing beyond the face has to be drawn anew.
KEPT = (
    *("head_width", "cheek", "jaw", "chin", "ears", "neck"),
    *("hair_light", "hair_red", "hair_gray", "hair_line", "hair_volume", "hair_length"),
    *("hair_fringe", "hair_part", "glasses", "glasses_shape", "glasses_colour"),
)


def exact(source, target):
    """The true swap: the source's inner face rendered in the target's head, state and alignment.

    Raises ValueError when a face is not of the synthetic set.
    """
    for face, name in ((source, "source"), (target, "target")):
        if "synthetic" not in face.meta:
            raise ValueError(f"proxy exact: the {name} is not synthetic; use --proxy=classical")
    person, scene = source.meta["synthetic"], target.meta["synthetic"]
    clip = _clip(*(scene[key] for key in ("seed", "identity", "clip", "frames", "fps")))
    identity = dataclasses.replace(
        sampling.sample_identity(person["seed"], person["identity"]),
        **{trait: getattr(clip.identity, trait) for trait in KEPT},
    )
    shape = scene["height"], scene["width"]
    image, _ = sampling.render(identity, clip.state(scene["frame"]), shape)
    return align.crop(image, target.meta["matrix"], target.image.shape[0])


@functools.lru_cache(maxsize=64)  # pairs share clips; sampling one takes 1.5 ms
def _clip(*parameters):
    return sampling.sample_clip(*parameters)
