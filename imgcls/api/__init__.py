"""Train from Python."""
