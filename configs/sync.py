"""swaptalk_jax/configs/sync.py, as --config=configs/sync.py names it; edit it there."""

from swaptalk_jax.configs.sync import *  # noqa: F403
