"""How an answer that goes on and on learns that its server is to end.

ASGI has no word for it: the lifespan ends after the last answer.
"""

IS_SHUTTING_DOWN = "flashslides.is_shutting_down"
"""In the scope of a request: a function that says whether its server was told to end."""
