"""Dataset classes: a table of samples, and a method that reads the pixels of one."""
