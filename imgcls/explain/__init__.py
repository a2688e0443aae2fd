"""Heat maps: which parts of an image a prediction of a network depends on."""
