"""The exceptions that a user of headrace can meet, and the exit code of a command that ends with one.

::

    HeadraceError                    the root: whatever headrace raises on purpose
    ├── UserError                2   something the user gave is wrong
    │   ├── PlanMismatch         2   the output was made by a pipeline with other answers or columns
    │   ├── Superseded           2   another run has planned the same output anew
    │   ├── Denied               2   the credentials are good, but not for this
    │   └── InputChanged         2   an input file is no longer the one that was planned
    ├── ChunksFailed             1   some chunks could not be done; the same command does the rest
    ├── EngineStartFailed        1   the engine does not start with this model on this machine
    ├── StorageUnavailable       1   a storage did not answer (also an OSError); the same command resumes
    ├── Unaccounted              1   the rows and the counts of a file do not agree; the file is not used
    └── JobsError                1   a call of a Ray cluster's Jobs API failed
        ├── Unreachable          1   nothing answers at the address
        ├── NotAuthorized        1   the cluster wants a token, or another one
        ├── NoSuchJob            1   the cluster knows no job of this id
        ├── JobExists            1   there is a job of this id already
        ├── Refused              1   the cluster does not take what it was given
        └── ServerFailed         1   the cluster answers that it failed

Other exit codes: 0 done, 3 too many dead letters, 130 interrupted.

What an engine, a source or an operator of another package raises is described where its protocol is.
"""

from typing import ClassVar

DONE, FAILED, USERS_MISTAKE, TOO_MANY_DEAD, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes of the commands."""


class HeadraceError(Exception):
    """Whatever headrace raises on purpose. The message says what happened, where, and what to do next."""

    exit_code: ClassVar[int] = FAILED


class UserError(HeadraceError):
    """Something the user gave is wrong: the message says what, where, and what to do next."""

    exit_code = USERS_MISTAKE


class ChunksFailed(HeadraceError):
    """Chunks could not be done for a reason that may pass; what is committed stays, and the same run resumes."""


class StorageUnavailable(HeadraceError, OSError):
    """A storage did not answer for as long as it was asked. Nothing is lost: the same command resumes."""
