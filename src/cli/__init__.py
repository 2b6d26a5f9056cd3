"""The command `flashslides`: thin commands over the operations the API uses too."""
