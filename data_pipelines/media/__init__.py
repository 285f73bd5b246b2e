"""Video and sound in and out, and spectra."""
