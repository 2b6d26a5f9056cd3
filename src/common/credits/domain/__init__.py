"""The ledger's rules, from values to values: no session, no driver, no setting."""
