"""`python -m lit_eve` is `lit-eve`."""

from lit_eve.cli import main

main()
