"""The embedded set: drawn people who speak."""
