"""Proxy swappers, and the pairs that they swap."""
