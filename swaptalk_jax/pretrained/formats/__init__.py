"""Readers of other people's files; nothing in a file is run."""
