"""Face shards -> code shards."""
