"""FLOPs, memory, traffic and a bound of a compiled step."""
