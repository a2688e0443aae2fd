"""Split a network where its frozen part ends, to cache the features of that part."""
