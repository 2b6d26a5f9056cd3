"""The HTTP API, a unit that is deployed; its code is in `src/api/src/`."""
