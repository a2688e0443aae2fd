"""Losses, optimizers, schedules, freezing: what a model is trained with."""
