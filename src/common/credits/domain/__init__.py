"""The ledger's rules as pure functions of values: no session, no driver, no setting."""
