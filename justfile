# Every check of the project, one by one; `just` alone runs them all, as CI does.

# All checks, the tests last
check: lint types contracts migrations test

# Style and formatting
lint:
    ruff check
    ruff format --check

# mypy and pyright, both strict; they disagree usefully
types:
    mypy
    pyright

# The layers: who may import whom
contracts:
    lint-imports

# Models and migrations agree, and no migration is dangerous
migrations: alembic-check squawk

# The migrations make the tables the models describe (on an embedded server of its own)
alembic-check:
    #!/usr/bin/env bash
    set -euo pipefail
    export FLASHSLIDES_DATA_DIR=$(mktemp -d)
    trap 'rm -rf "$FLASHSLIDES_DATA_DIR"' EXIT
    alembic upgrade head
    alembic check

# Lint the SQL of every migration
squawk:
    alembic upgrade head --sql | squawk

# The tests, on a server of their own
test *arguments:
    pytest {{arguments}}

# Run the service
serve *arguments:
    flashslides serve {{arguments}}

# Renew the pins: pyproject.toml's constraints and requirements.lock
lock:
    python scripts/lock.py
