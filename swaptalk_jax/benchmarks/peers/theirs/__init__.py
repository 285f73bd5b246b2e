"""What runs in the peer's own Python, as a script: PyTorch, and nothing of this project.

The scripts import one another by bare names, as files of one folder do.
"""
