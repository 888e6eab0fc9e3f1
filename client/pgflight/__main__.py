"""`python -m pgflight`: the command line."""

from pgflight.cli import main

main()
