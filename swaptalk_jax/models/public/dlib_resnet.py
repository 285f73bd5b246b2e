"""dlib's face recogniser (King, 2017: 128-d, 99.4 % on LFW) for public weights: frozen.

A ResNet of 29 convolutions. The affine layer behind each of them, which was its batch norm, is
folded into it when the weights are read (pretrained/formats/dlib_file.py).
"""

import flax.linen as nn
import jax.numpy as jnp

# Units of each width; the first one of a width halves the grid, but for that of the first width.
UNITS = ((32, 3), (64, 4), (128, 3), (256, 3), (256, 1))
CHIP = 150  # pixels of a side, as dlib.get_face_chip cuts a face with a padding of 0.25
MEAN = (122.782, 117.001, 104.298)  # of dlib's training images, RGB


class DlibUnit(nn.Module):
    """Two 3x3 convolutions, plus the input; `stride` 2 takes means of 2x2 pixels of the input.

    What is smaller of both, in rows, columns or channels, counts as 0 beyond its end, as in dlib.
    """

    width: int
    stride: int

    @nn.compact
    def __call__(self, x):
        """[b h w c] -> [b h' w' width], h' = h or h // 2."""
        padding = 1 if self.stride == 1 else 0
        hidden = nn.relu(nn.Conv(self.width, (3, 3), self.stride, padding, name="conv1")(x))
        hidden = nn.Conv(self.width, (3, 3), padding=1, name="conv2")(hidden)
        if self.stride == 2:
            x = nn.avg_pool(x, (2, 2), (2, 2))
        return nn.relu(_filled(x, hidden.shape) + _filled(hidden, x.shape))


class DlibResNet(nn.Module):
    """Face chips uint8 or float [b 150 150 3], RGB in [0, 255] -> float32 [b 128].

    Embeddings are of any length; dlib compares them as they are.
    """

    @nn.compact
    def __call__(self, image):
        x = (image.astype(jnp.float32) - jnp.array(MEAN)) / 256.0
        x = nn.relu(nn.Conv(UNITS[0][0], (7, 7), 2, "VALID", name="stem")(x))
        x = nn.max_pool(x, (3, 3), (2, 2))
        for level, (width, units) in enumerate(UNITS):
            for unit in range(units):
                stride = 2 if level and not unit else 1
                x = DlibUnit(width, stride, name=f"level{level}_unit{unit}")(x)
        return nn.Dense(128, use_bias=False, name="embedding")(x.mean((1, 2)))


def _filled(x, shape):
    """x [b h w c] with zeros at the ends, to be as large as `shape` where that is larger."""
    return jnp.pad(x, [(0, max(0, n - own)) for own, n in zip(x.shape, shape, strict=True)])
