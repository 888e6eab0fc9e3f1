"""Other ways to read PostgreSQL into Arrow, one module each: imported only in the process that measures it."""
