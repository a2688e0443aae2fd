"""From probabilities to what is predicted for each image: texts, and tables of them, CSV or Parquet."""
