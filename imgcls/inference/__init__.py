"""Load a trained classifier and apply it to images in Python."""
