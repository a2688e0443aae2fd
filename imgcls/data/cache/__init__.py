"""``create_dataset: true``: decoded images on disk, made once for all epochs, runs and trials."""
