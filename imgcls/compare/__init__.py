"""``imgcls compare``: which runs differ by more than chance, from the files of their run folders; without torch."""
