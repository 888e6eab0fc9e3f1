"""What operators see of a running server: metrics and health, on a port of their own."""
