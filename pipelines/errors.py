"""The one error that is the user's to mend: shown as a message without a traceback, exit code 2."""


class UserError(Exception):
    """Something the user gave is wrong: the message says what, where, and what to do next."""
