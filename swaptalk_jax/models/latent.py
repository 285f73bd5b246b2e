"""The latent grid: its halves, its patches, the range of images."""

import jax.numpy as jnp


def halves(x):
    """Upper and lower half of an image or grid: [... h w c] -> two [... h/2 w c]."""
    middle = x.shape[-3] // 2
    return x[..., :middle, :, :], x[..., middle:, :, :]


def join(upper, lower):
    """Inverse of `halves`: two [... h/2 w c] -> [... h w c] (paper eq. 2, 13)."""
    return jnp.concatenate([upper, lower], axis=-3)


def factor(multipliers, patch=1):
    """f: side in pixels of what one code stands for."""
    return patch * 2 ** (len(multipliers) - 1)


def to_patches(image, patch):
    """Blocks of patch x patch pixels become channels: [b h w c] -> [b h/p w/p ppc]."""
    b, h, w, c = image.shape
    blocks = image.reshape(b, h // patch, patch, w // patch, patch, c)
    return blocks.swapaxes(2, 3).reshape(b, h // patch, w // patch, patch * patch * c)


def from_patches(x, patch):
    """Inverse of `to_patches`: [b h w ppc] -> [b hp wp c]."""
    b, h, w, c = x.shape
    blocks = x.reshape(b, h, w, patch, patch, c // patch**2)
    return blocks.swapaxes(2, 3).reshape(b, h * patch, w * patch, c // patch**2)


def to_float(image):
    """uint8 [... h w 3] -> float32 [-1, 1]."""
    return image.astype(jnp.float32) / 127.5 - 1.0
