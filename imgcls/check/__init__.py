"""The command ``check``: looks at the data before training."""
