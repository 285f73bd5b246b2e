"""swaptalk_jax/configs/identity.py, as --config=configs/identity.py names it; edit it there."""

from swaptalk_jax.configs.identity import *  # noqa: F403
