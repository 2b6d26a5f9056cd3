"""Groups of users with a schema each: directory, groups, refusals (decision 0066)."""
