"""The benchmark: pgflight, the floors PostgreSQL sets, and other ways to read it into Arrow, in one run."""
