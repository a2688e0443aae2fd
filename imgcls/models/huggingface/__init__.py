"""Networks and image processors from Hugging Face's Hub or a local folder."""
