"""Losses, optimizers, schedules and freezing."""
