#!/usr/bin/env bash
# pytest-xdist 3.8.0 under pytest 9.2.0: `--dist=loadgroup` keeps no group together, and says nothing.
#
# Tests marked `xdist_group("one")` are promised to one worker. xdist tells its scheduler the group by
# a suffix of the node id (`test_x@one`), which it writes to the attribute `_nodeid`. pytest 9.2.0 reads
# node ids from elsewhere, so the suffix is lost and the group's tests are spread over the workers.
# pytest 9.1.1 with the same xdist keeps them together. Seen: 9.2.0 two workers, 9.1.1 one.
# Fails once this is no longer so.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/test_group.py" <<'PYTHON'
import time

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(8))
def test_of_the_group(number):
    time.sleep(0.2)
PYTHON

workers() {
    python3 -m venv "$folder/$1"
    "$folder/$1/bin/pip" install --quiet "pytest==$1" pytest-xdist==3.8.0
    (cd "$folder" && "$folder/$1/bin/python" -m pytest -c /dev/null --rootdir "$folder" -n 2 \
        --dist=loadgroup -v test_group.py | grep -o '^\[gw[0-9]\]' | sort -u | wc -l)
}

old=$(workers 9.1.1) new=$(workers 9.2.0)
echo "Workers that ran one group: pytest 9.1.1: $old, pytest 9.2.0: $new"
[ "$old" = 1 ] && [ "$new" = 2 ]
