"""swaptalk_jax/configs/common.py; edit it there."""

from swaptalk_jax.configs.common import *  # noqa: F403
