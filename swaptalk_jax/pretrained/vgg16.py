"""VGG16 of torchvision (`vgg16-397923af`, saved as safetensors) for the perceptual loss."""

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from swaptalk_jax.checkpoints import CheckpointError
from swaptalk_jax.models.vgg import STAGES


def load(path):
    """Parameters of models.vgg.VGG16Features from torchvision's `features.N.weight` and `.bias`.

    Only safetensors is read: a .pth file is a pickle, convert it once with
    `safetensors.torch.save_file(torch.load(..., weights_only=True), ...)`.
    """
    try:
        weights = load_file(path)
        return {
            f"features_{n}": {
                "kernel": np.transpose(weights[f"features.{n}.weight"], (2, 3, 1, 0)),
                "bias": weights[f"features.{n}.bias"],
            }
            for indices, _ in STAGES
            for n in indices
        }
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot read VGG16's weights ({error})") from error
    except KeyError as error:
        raise CheckpointError(f"{path}: no tensor {error}; is this torchvision's vgg16?") from error
