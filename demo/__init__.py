"""An embedded PostgreSQL with real data: what the demo, the tests and the benchmarks run against."""
