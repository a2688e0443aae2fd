"""From samples to batches: samplers, loader workers, shared memory."""
