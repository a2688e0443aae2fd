"""Read run folders: configuration, curves, and the predictions of every evaluated image; without torch."""
