"""Checkpoint files, and the run folders that hold them."""
