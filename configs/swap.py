"""swaptalk_jax/configs/swap.py, as --config=configs/swap.py names it; edit it there."""

from swaptalk_jax.configs.swap import *  # noqa: F403
