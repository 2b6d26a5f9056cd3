"""Groups of users with a schema each: the directory, the groups, what is refused (decision 0066)."""
