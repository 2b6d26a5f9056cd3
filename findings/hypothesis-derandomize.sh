#!/usr/bin/env bash
# hypothesis 6.170.15: with `derandomize=True` a test draws other examples once another module is imported.
#
# `derandomize` is promised to run the same examples every time, from a hash of the test. But Hypothesis
# also draws from constants that it finds in the project's own modules that are loaded. So a module that
# the test does not use, imported by another test, changes what this one draws: it depends on the order
# of the tests. Seen: another list of draws with the import, and the same list twice without it.
# Fails once this is no longer so.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/neighbour.py" <<'PYTHON'
LIMITS = [7_654_321, 8_765_432, 9_876_543, 5_432_198, 3_219_876, 2_198_765]
PYTHON
cat > "$folder/draws.py" <<'PYTHON'
import sys

from hypothesis import given, settings, strategies as st

if "with" in sys.argv:
    import neighbour

drawn = []


@settings(derandomize=True, max_examples=200, database=None)
@given(st.integers())
def draw(number):
    drawn.append(number)


draw()
print(drawn)
PYTHON

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet hypothesis==6.170.15
draws() { (cd "$folder" && CI="" "$folder/venv/bin/python" draws.py "$@" | sha256sum); }

alone=$(draws) again=$(draws) beside=$(draws with)
echo "Digest of the draws, twice alone: $alone$again; with another module loaded: $beside"
[ "$alone" = "$again" ] && [ "$alone" != "$beside" ]
