"""The command ``check``: find unreadable, duplicated and leaking images before training."""
