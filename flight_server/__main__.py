"""``python -m flight_server``."""

from flight_server.cli import main

main()
