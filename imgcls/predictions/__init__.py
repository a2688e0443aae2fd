"""What is predicted for each image: texts, tables of them as CSV or Parquet, and a file of features."""
