"""Heat maps: which parts of an image an answer of a network depends on."""
