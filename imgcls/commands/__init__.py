"""The commands: data and model meet, and Lightning's Trainer runs."""
