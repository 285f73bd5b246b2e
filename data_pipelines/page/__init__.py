"""index.html of a build."""
