"""The sections of the YAML, dotted overrides, and class paths."""
