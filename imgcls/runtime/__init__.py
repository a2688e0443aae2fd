"""What any program needs around its subject: files, signals, seeds, processes, progress, messages."""
