"""Whose face it is, and the split."""
