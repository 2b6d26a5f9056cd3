"""Events that arrive together, settled together; the others go by themselves."""
