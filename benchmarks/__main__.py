"""`python -m benchmarks`, also `flashslides bench`."""

from benchmarks.command import main

main()
