"""`python -m federation` is `federation`."""

from federation.cli import main

main()
