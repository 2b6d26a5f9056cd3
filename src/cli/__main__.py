"""`python -m src.cli`: the command without its console script."""

from src.cli.main import main

main()
