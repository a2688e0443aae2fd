"""Cached features of a frozen encoder."""
