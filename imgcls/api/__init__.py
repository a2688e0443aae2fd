"""imgcls in Python: a classifier from a checkpoint, and a fit, without the command line."""
