"""One file, one callback."""
