"""swaptalk_jax/configs/vqgan.py, as --config=configs/vqgan.py names it; edit it there."""

from swaptalk_jax.configs.vqgan import *  # noqa: F403
