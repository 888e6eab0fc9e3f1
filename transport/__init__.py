"""Movement: PostgreSQL to filled blocks of memory.  Knows no PostgreSQL types and no Flight."""
