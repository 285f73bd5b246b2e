"""Pictures on the device: ranges, and the light changes that a recogniser must not see."""

import jax
import jax.numpy as jnp


def augment(rng, image):
    """Random brightness (+-0.15), contrast (0.8-1.2) and blur of half of the images [b h w 3].

    Blur matters: the recogniser will look at a decoder's pictures, which are softer than its
    training set, and must not take softness for a person.
    """
    b = image.shape[0]
    light, contrast, blur = jax.random.split(rng, 3)
    shift = jax.random.uniform(light, (b, 1, 1, 1), minval=-0.15, maxval=0.15)
    gain = jax.random.uniform(contrast, (b, 1, 1, 1), minval=0.8, maxval=1.2)
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = 0.25 * padded[:, :-2] + 0.5 * padded[:, 1:-1] + 0.25 * padded[:, 2:]
    soft = 0.25 * rows[:, :, :-2] + 0.5 * rows[:, :, 1:-1] + 0.25 * rows[:, :, 2:]
    blurred = jnp.where(jax.random.bernoulli(blur, 0.5, (b, 1, 1, 1)), soft, image)
    return jnp.clip(blurred * gain + shift, -1.0, 1.0)
