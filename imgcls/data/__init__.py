"""The data half: from samples to batches."""
