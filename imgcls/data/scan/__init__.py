"""Headers and content hashes of image files, and the images that cannot be used."""
