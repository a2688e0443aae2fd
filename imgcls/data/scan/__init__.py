"""Scan image files before training: unreadable files and content hashes, cached between runs."""
