"""Networks, stages, training and inference of SwapTalk."""

from swaptalk_jax import memory

__version__ = "0.1.0"  # the only place; setup.py reads this line

memory.use_large_pages()
