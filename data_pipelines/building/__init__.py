"""The rounds of a build, its jobs, and what runs them."""
