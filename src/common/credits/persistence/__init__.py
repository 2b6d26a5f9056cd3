"""Users' books in the database: the statements that read and write them."""
