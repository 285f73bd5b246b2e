"""Faces in videos: found, followed, aligned, judged."""
