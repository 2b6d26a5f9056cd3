"""PostgreSQL as every service uses it: engines, retries, errors, migrations, roles."""
