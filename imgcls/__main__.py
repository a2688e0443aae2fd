"""``python -m imgcls`` is the same program as ``imgcls``."""

from imgcls.cli.main import main

main()
