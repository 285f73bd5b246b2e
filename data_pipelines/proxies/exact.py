"""The proxy swapper of the embedded set: the source's head drawn anew in the target's pose."""

import functools

from data_pipelines.faces import align
from data_pipelines.synthetic import sampling


def exact(source, target):
    """The true swap: the source's identity rendered in the target clip's state, target's alignment.

    Raises ValueError when a face is not of the synthetic set.
    """
    for face, name in ((source, "source"), (target, "target")):
        if "synthetic" not in face.meta:
            raise ValueError(f"proxy exact: the {name} is not synthetic; use --proxy=classical")
    person, scene = source.meta["synthetic"], target.meta["synthetic"]
    identity = sampling.sample_identity(person["seed"], person["identity"])
    clip = _clip(*(scene[key] for key in ("seed", "identity", "clip", "frames", "fps")))
    shape = scene["height"], scene["width"]
    image, _ = sampling.render(identity, clip.state(scene["frame"]), shape)
    return align.crop(image, target.meta["matrix"], target.image.shape[0])


@functools.lru_cache(maxsize=64)  # pairs share clips; sampling one takes 1.5 ms
def _clip(*parameters):
    return sampling.sample_clip(*parameters)
