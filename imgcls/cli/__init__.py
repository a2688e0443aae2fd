"""What is read, answered and said around the command line, before and after the parser."""
