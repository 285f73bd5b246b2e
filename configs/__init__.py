"""The configs: data only, one file a stage."""
