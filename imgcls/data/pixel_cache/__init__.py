"""Decoded and resized images on disk (``create_dataset``)."""
