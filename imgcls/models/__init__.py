"""Image classifiers of Hugging Face: building, training and inference."""
