# Every check of the project, one by one; `just` alone runs them all, as CI does.

cosmic_ray := "cosmic-ray==8.7.0"

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
    # A working directory of its own, so that no .env names another database.
    here=$PWD
    cd "$(mktemp -d)"
    trap 'rm -rf "$PWD"' EXIT
    unset ${!DATABASE_@}
    export ENV=local FLASHSLIDES_DATA_DIR=$PWD/data FLASHSLIDES_PG_PORT=$(python -c 'from src.local_postgres import free_port; print(free_port())')
    chmod 755 .
    alembic --config "$here/alembic.ini" upgrade head
    alembic --config "$here/alembic.ini" check

# Lint the SQL of every migration
squawk:
    #!/usr/bin/env bash
    set -euo pipefail
    sql=$(mktemp)
    trap 'rm -f "$sql"' EXIT
    alembic upgrade head --sql > "$sql"
    squawk "$sql"

# The tests, on a server of their own
test *arguments:
    pytest {{arguments}}

# How long the tests of this commit and of another take, by turns, each from an empty environment
suite-against revision rounds="1":
    #!/usr/bin/env bash
    set -euo pipefail
    parent=$(mktemp -d)
    trap 'rm -rf "$parent"' EXIT
    unset VIRTUAL_ENV UV_PROJECT_ENVIRONMENT
    for _ in $(seq {{rounds}}); do
        for revision in HEAD "{{revision}}"; do
            rm -rf "$parent/clone"
            git clone --quiet . "$parent/clone"
            git -C "$parent/clone" checkout --quiet "$(git rev-parse "$revision")"
            began=$(date +%s)
            last=$(cd "$parent/clone" && uv run pytest | tail -1) || true
            echo "$revision: $(($(date +%s) - began)) s, with what uv installs: $last"
        done
    done

# The tests again and again under what a test must not depend on: a busy machine, order, autovacuum
endurance rounds="10":
    #!/usr/bin/env bash
    set -euo pipefail
    for _ in 1 2; do python -c "while True: pass" & burners+=($!); done
    trap 'kill "${burners[@]}"' EXIT
    eager=(--server-setting={autovacuum_naptime=1,autovacuum_vacuum_threshold=0,autovacuum_analyze_threshold=0,autovacuum_vacuum_scale_factor=0,autovacuum_analyze_scale_factor=0,autovacuum_vacuum_insert_threshold=0,autovacuum_vacuum_insert_scale_factor=0,autovacuum_vacuum_cost_delay=0})
    order=no:randomly
    for round in $(seq {{rounds}}); do
        echo "just endurance: round $round of {{rounds}}, -p $order" >&2
        pytest -p "$order" "${eager[@]}"
        [ "$order" = randomly ] && order=no:randomly || order=randomly
    done

# The ledger against its model, a million operations, each round under the next seed: marathon 1 SEED
marathon rounds="20" seed=`python -c "import secrets; print(secrets.randbelow(2**32))"`:
    @echo "just marathon {{rounds}} {{seed}}" >&2
    ROUNDS={{rounds}} LEDGER_MODEL_SEED={{seed}} pytest -v --timeout=0 tests/credits/test_model.py

# Storms over the Stripe loop, each under the next seed; a failing one replays: just storm 1 SEED
storm rounds="100" seed=`python -c "import secrets; print(secrets.randbelow(2**32))"`:
    @echo "just storm {{rounds}} {{seed}}" >&2
    STORM_ROUNDS={{rounds}} STORM_SEED={{seed}} pytest -n0 -v --timeout=0 tests/stripe/test_simulation.py

# Servers fail under load: what is lost, doubled, and for how long nobody is served: failover --short
failover *arguments:
    python -m benchmarks.failover {{arguments}}

# The same behind PgBouncer, with the engine's rate through it; PGBOUNCER names another program
poolers *arguments:
    python -m benchmarks.failover.poolers {{arguments}}

# Do the tests of the pure rules notice when a rule is wrong? On a copy, a mutant at a time
mutation:
    #!/usr/bin/env bash
    set -euo pipefail
    here=$PWD copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    cp -r src tests pyproject.toml cosmic-ray.toml "$copy"
    cd "$copy"
    export PYTHONPATH=$copy PYTHONDONTWRITEBYTECODE=1
    run="uv run --quiet --project $here --with {{cosmic_ray}}"
    $run cosmic-ray baseline cosmic-ray.toml
    $run cosmic-ray init cosmic-ray.toml mutants.sqlite
    $run cr-filter-operators mutants.sqlite cosmic-ray.toml
    nice -n 15 $run cosmic-ray exec cosmic-ray.toml mutants.sqlite
    $run cr-report --show-diff --surviving-only mutants.sqlite

# Write the generated pages of docs/reference
reference:
    python -m scripts.reference

# A table: every command, whatever is wrong with the database, at Ctrl-C, in a terminal and a pipe
answers:
    python -m scripts.answers

# Run the service
serve *arguments:
    flashslides serve {{arguments}}

# Renew the pins: pyproject.toml's constraints and requirements.lock
lock:
    python scripts/lock.py

# Serve the documentation site
docs *arguments:
    NO_MKDOCS_2_WARNING=1 mkdocs serve --dev-addr localhost:8001 {{arguments}}
