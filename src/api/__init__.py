"""The HTTP API: a deployable unit; its code is in `src/api/src/`."""
