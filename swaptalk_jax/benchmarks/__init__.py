"""Measurements of speed, each within one run."""
