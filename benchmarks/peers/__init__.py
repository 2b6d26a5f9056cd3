"""Peers from the package index, each used as its documentation says, in a database of its own.

They come with the dependency group `peers`; what is not installed takes no part, and the report
says so. They are imported by name, because a checkout without the group is checked too.
"""
