"""Divide the samples into train, validation and test, and keep the split of a checkpoint."""
