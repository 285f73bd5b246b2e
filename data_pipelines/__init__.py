"""Media in, face shards out; nothing here imports jax: workers must not touch accelerators."""
