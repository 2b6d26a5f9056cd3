#!/usr/bin/env bash
# SQLAlchemy 2.1.9 (psycopg 3.3.9): reflecting a CHECK that is NOT VALID warns, and loses that it is.
#
# A table between two migrations has such constraints: added NOT VALID, validated later. `MetaData.reflect`
# hands what PostgreSQL's dialect found to `CheckConstraint(dialect_options={'not_valid': True})`, which
# takes options by dialect only. So it warns that no dialect is called `dialect`, and the option is not
# among those of PostgreSQL. Where warnings are errors, comparing a schema fails there.
# Seen: "SAWarning: Can't validate argument 'dialect_options'; …", and postgresql_not_valid: False.
# Fails once this is no longer so.
set -euo pipefail

folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit --legacy-peer-deps \
    @electric-sql/pglite@0.5.17 @electric-sql/pglite-socket@0.2.17
python3 -m venv venv
venv/bin/pip install --quiet sqlalchemy==2.1.9 "psycopg[binary]==3.3.9"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat > serve.mjs <<'JS'
import { PGlite } from "@electric-sql/pglite";
import { PGLiteSocketServer } from "@electric-sql/pglite-socket";

const db = await PGlite.create();
await new PGLiteSocketServer({ db, host: "127.0.0.1", port: Number(process.argv[2]) }).start();
console.log("ready");
JS
: > served
node serve.mjs "$port" > served &
server=$!
until grep -q ready served; do sleep 0.1; done
cat > reflect.py <<'PYTHON'
import sys
import warnings

from sqlalchemy import MetaData, create_engine
from sqlalchemy.pool import StaticPool

url = f"postgresql+psycopg://postgres:postgres@127.0.0.1:{sys.argv[1]}/postgres?sslmode=disable"
engine = create_engine(url, poolclass=StaticPool, connect_args={"prepare_threshold": None})
with engine.begin() as connection:
    connection.exec_driver_sql("CREATE TABLE payments (cents integer)")
    connection.exec_driver_sql("ALTER TABLE payments ADD CONSTRAINT positive CHECK (cents > 0) NOT VALID")
tables = MetaData()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    tables.reflect(engine)
engine.dispose()
for each in caught:
    print(f"{each.category.__name__}: {each.message}")
[check] = [each for each in tables.tables["payments"].constraints if each.name == "positive"]
print("postgresql_not_valid:", check.dialect_kwargs.get("postgresql_not_valid"))
PYTHON
seen=$(venv/bin/python reflect.py "$port")
echo "$seen"
[ "$seen" = "SAWarning: Can't validate argument 'dialect_options'; can't locate any SQLAlchemy dialect named 'dialect'
postgresql_not_valid: False" ]
