"""Sections of the configuration, dotted overrides and class paths."""
