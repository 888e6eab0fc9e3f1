"""A server that is full, and one that is told to stop: what is still answered, how fast, and that it ends."""
