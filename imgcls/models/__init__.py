"""The model half: any Hugging Face classifier, and how it is trained."""
