"""``python -m imgcls`` is the same program as ``imgcls``."""

from imgcls.entry import main

main()
