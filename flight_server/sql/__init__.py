"""Flight SQL in front of PostgreSQL: what the commands of `flight_sql` mean here."""
