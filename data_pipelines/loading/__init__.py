"""(config, step) -> batch, a pure function."""
