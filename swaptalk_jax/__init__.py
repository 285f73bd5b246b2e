"""Networks, stages, training and inference of SwapTalk."""
