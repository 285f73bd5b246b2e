"""Pieces of HTML pages that need no other file."""
