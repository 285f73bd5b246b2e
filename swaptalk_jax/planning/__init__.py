"""A pod that isn't there: memory, traffic and a bound of a step, compiled ahead."""
