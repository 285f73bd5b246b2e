"""Names for --config, in a checkout: the configs are in swaptalk_jax/configs."""
