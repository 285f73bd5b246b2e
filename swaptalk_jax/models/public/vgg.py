"""VGG16's convolutions behind the perceptual loss: plain, with LPIPS's heads, shift-tolerant."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

# torchvision's index of each convolution in `vgg16().features`, by stage.
STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
MEAN = (0.485, 0.456, 0.406)  # ImageNet, for images in [0, 1], as torchvision and LPIPS
STD = (0.229, 0.224, 0.225)


class VGG16Features(nn.Module):
    """image [b H W 3] in [-1, 1] -> list of five maps: relu1_2, 2_2, 3_3, 4_3, 5_3.

    Map i is [b H/2^i W/2^i widths[i]] of `dtype` (shift-tolerant: each stage's side is half of
    the side before, rounded down, plus 1); H and W at least 16. Kernels [3 3 in out] have
    torchvision's numbers: features_N; lin0..lin4 [widths[i]] are LPIPS's heads. The conversion
    from [-1, 1] to ImageNet's normalisation is done inside.

    heads: `distance` is LPIPS (Zhang et al. 2018) instead of the paper's eq. 3.
    shift_tolerant: stages are joined by a maximum at stride 1 and a binomial blur at stride 2
        (Ghildyal & Liu 2022), so that moving a picture by a pixel changes little.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    heads: bool = False
    shift_tolerant: bool = False
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.features = {
            str(index): nn.Conv(width, (3, 3), dtype=self.dtype)
            for indices, width in zip(STAGES, self.widths, strict=True)
            for index in indices
        }
        if self.heads:
            self.lin = [
                self.param(f"lin{i}", nn.initializers.ones, (width,))
                for i, width in enumerate(self.widths)
            ]

    def __call__(self, image):
        x = ((image + 1) / 2 - jnp.array(MEAN)) / jnp.array(STD)
        maps = []
        for stage, indices in enumerate(STAGES):
            if stage > 0:
                x = blur_pool(x) if self.shift_tolerant else nn.max_pool(x, (2, 2), (2, 2))
            for index in indices:
                x = nn.relu(self.features[str(index)](x))
            maps.append(x)
        return maps

    def distance(self, image, result):
        """How different two images [b H W 3] look -> float32 [b], 0 for equal ones.

        With heads, LPIPS: features are brought to unit length, squared differences weighted by
        the heads, averaged over places and summed over maps. Without, the mean absolute
        differences of the maps, summed (second term of eq. 3).
        """
        total = 0.0
        for i, maps in enumerate(zip(self(image), self(result), strict=True)):
            a, b = (x.astype(jnp.float32) for x in maps)
            if self.heads:
                weighted = self.lin[i] * jnp.square(unit(a) - unit(b))
                total += jnp.mean(jnp.sum(weighted, axis=-1), axis=(1, 2))
            else:
                total += jnp.mean(jnp.abs(a - b), axis=(1, 2, 3))
        return total


def unit(x):
    """x [... c] over its length, which counts as at least 1e-5.

    LPIPS adds 1e-10 to the length: features that nearly vanish would get gradients of 1e10, and
    those that do vanish NaN.
    """
    return x * lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-10)


def blur_pool(x):
    """Maximum of 2 x 2 neighbours, then (1, 2, 1)/4 both ways at stride 2.

    [b h w c] -> [b h//2+1 w//2+1 c]: edges are mirrored by two places. Sums of slices, as a
    depthwise convolution is slow on CPU.
    """
    x = jnp.maximum(x[:, :-1], x[:, 1:])
    x = jnp.maximum(x[:, :, :-1], x[:, :, 1:])
    for axis in (1, 2):
        x = jnp.moveaxis(x, axis, 0)
        x = jnp.concatenate([x[2:0:-1], x, x[-2:-4:-1]])
        n = (len(x) - 1) // 2
        x = (x[: 2 * n : 2] + x[2 : 2 * n + 1 : 2]) / 4 + x[1 : 2 * n : 2] / 2
        x = jnp.moveaxis(x, 0, axis)
    return x
