"""Which image is in which split."""
