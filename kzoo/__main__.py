"""`python -m kzoo`, the same as `kzoo`."""

from kzoo.cli import main

main()
