"""swaptalk_jax/configs/expert.py, as --config=configs/expert.py names it; edit it there."""

from swaptalk_jax.configs.expert import *  # noqa: F403
