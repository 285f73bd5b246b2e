"""How good a bundle is: the split, what is rendered, the metrics, the report."""
