"""What can go wrong and is no row's: what the user has to mend, and a storage that does not answer."""


class UserError(Exception):
    """Something the user gave is wrong: the message says what, where, and what to do next. Exit code 2."""


class StorageUnavailable(OSError):
    """A storage did not answer for as long as it was asked. Nothing is lost: the same command resumes. Exit code 1."""
