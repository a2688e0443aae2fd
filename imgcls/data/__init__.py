"""The data half: splits, transforms, caches and loaders."""
