#!/usr/bin/env bash
# PostgreSQL 18.7 (PGlite 0.5.17): `AT TIME ZONE 'CET'` and `SET TIME ZONE 'CET'` mean different zones.
#
# CET, MET, EET and WET are zones of the tz database with summer time, and abbreviations with one offset.
# `AT TIME ZONE` looks among abbreviations first, `SET TIME ZONE` does not. So 22:30 UTC on 30 June is
# still June by the one, and July by the other, which agrees with Python's `ZoneInfo('CET')`. Days that
# SQL counts and days that Python counts differ, for a name that both accept.
# Seen: 23:30 on 30 June and 00:30 on 1 July; for Europe/Berlin twice 00:30 on 1 July.
# Fails once this is no longer so.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit @electric-sql/pglite@0.5.17
cat > zones.mjs <<'JS'
import { PGlite } from "@electric-sql/pglite";

const database = await PGlite.create();
const written = async (instant) =>
  (await database.query(`SELECT to_char(${instant}, 'MM-DD HH24:MI') AS written`)).rows[0].written;
for (const zone of ["CET", "Europe/Berlin"]) {
  const instant = "timestamptz '2026-06-30 22:30+00'";
  const converted = await written(`${instant} AT TIME ZONE '${zone}'`);
  await database.query(`SET TIME ZONE '${zone}'`);
  console.log(`${zone}: ${converted}, ${await written(instant)}`);
}
JS
seen=$(node zones.mjs)
echo "$seen"
[ "$seen" = "CET: 06-30 23:30, 07-01 00:30
Europe/Berlin: 07-01 00:30, 07-01 00:30" ]
