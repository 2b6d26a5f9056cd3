"""PostgreSQL as every service uses it: engines, retries, what errors mean, migrations, roles."""
