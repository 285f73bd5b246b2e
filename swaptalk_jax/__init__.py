"""Networks, stages, training and inference of SwapTalk."""

__version__ = "0.1.0"  # the only place; setup.py reads this line
