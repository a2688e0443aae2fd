"""Infrastructure without knowledge of images: files, signals, seeds, processes, progress and messages."""
