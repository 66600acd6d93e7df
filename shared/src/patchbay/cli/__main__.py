"""``python -m patchbay.cli``."""

from patchbay.cli import main

main()
