"""Networks and image processors from the Hugging Face Hub or a local folder."""
