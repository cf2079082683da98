"""The one exception for a user's mistake: the command lines print it as one line and exit with code 2."""


class UserError(Exception):
    """Says in one line what came, what was wanted and what to do."""
