"""Ours and a peer in turns within one run, so that what slows the machine slows both."""
