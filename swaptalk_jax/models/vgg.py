"""VGG16's convolutions, the features of the perceptual loss (paper eq. 3)."""

import flax.linen as nn
import jax.numpy as jnp

# torchvision's index of each convolution in `vgg16().features`, by stage, and its channels.
STAGES = (
    ((0, 2), 64),
    ((5, 7), 128),
    ((10, 12, 14), 256),
    ((17, 19, 21), 512),
    ((24, 26, 28), 512),
)
MEAN = (0.485, 0.456, 0.406)  # ImageNet, for images in [0, 1], as torchvision
STD = (0.229, 0.224, 0.225)


class VGG16Features(nn.Module):
    """image [b H W 3] in [-1, 1] -> list of five maps: relu1_2, 2_2, 3_3, 4_3, 5_3.

    Map i is [b H/2^i W/2^i c] of `dtype`, c = 64, 128, 256, 512, 512; H and W at least 16.
    Weights come from torchvision's vgg16: its `features.N.weight` [out in 3 3] is our
    features_N/kernel [3 3 in out] after transpose(2, 3, 1, 0), `features.N.bias` our
    features_N/bias. The conversion from [-1, 1] to ImageNet's normalisation is done inside.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image):
        x = ((image + 1) / 2 - jnp.array(MEAN)) / jnp.array(STD)
        maps = []
        for stage, (indices, channels) in enumerate(STAGES):
            if stage > 0:
                x = nn.max_pool(x, (2, 2), (2, 2))
            for index in indices:
                conv = nn.Conv(channels, (3, 3), dtype=self.dtype, name=f"features_{index}")
                x = nn.relu(conv(x))
            maps.append(x)
        return maps
