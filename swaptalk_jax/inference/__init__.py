"""A bundle at work: the networks as functions of arrays, and the editing of videos."""
