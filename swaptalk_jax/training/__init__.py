"""The run of a stage: set up, stepped, saved, watched."""
