"""Importers of public weights, one file a network."""
