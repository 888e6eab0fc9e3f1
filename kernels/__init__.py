"""Meaning: PostgreSQL's binary wire bytes to Arrow buffers.  No I/O, no Flight, no psycopg."""
