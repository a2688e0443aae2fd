"""Split a network where its frozen part ends."""
