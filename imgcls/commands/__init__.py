"""The commands, where data and model are combined, and Lightning's Trainer runs."""
