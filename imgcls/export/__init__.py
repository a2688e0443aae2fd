"""Export a trained classifier: a model that other programs load, checked on real files."""
