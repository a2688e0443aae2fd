"""Augmentation and evaluation transforms."""
