"""Django's database backend for PostgreSQL, with a deadline for everything that it waits for."""
