"""The exceptions that a user of headrace can meet, and the exit codes of commands that end with them.

::

    HeadraceError                    the root: every error that headrace raises on purpose
    ├── UserError                2   something the user gave is wrong
    │   ├── PipelineMistake      2   a pipeline, or a step of one, cannot be (also a ValueError)
    │   ├── PlanMismatch         2   the output was made by a pipeline with other answers or columns
    │   ├── OldLayout            2   the output's files have the names of an earlier build: headrace convert
    │   ├── Damaged              2   a file of the output is not what headrace wrote: headrace verify
    │   ├── Strangers            2   the output contains files of somebody else where readers look
    │   ├── Superseded           2   another run has planned the same output again
    │   ├── Denied               2   the credentials are valid, but do not permit this
    │   └── InputChanged         2   an input file has changed since it was planned
    ├── ChunksFailed             1   some chunks failed; the same command does the rest
    ├── EngineStartFailed        1   the engine does not start with this model on this machine
    ├── StorageUnavailable       1   a storage did not answer (also an OSError); the same command resumes
    ├── Unaccounted              1   the rows and the counts of a file do not agree; the file is not used
    └── JobsError                1   a call of a Ray cluster's Jobs API failed
        ├── Unreachable          1   nothing answers at the address
        ├── NotAuthorized        1   the cluster requires a token, or another one
        ├── NoSuchJob            1   the cluster has no job with this id
        ├── JobExists            1   the cluster already has a job with this id
        ├── Refused              1   the cluster does not accept what it was given
        └── ServerFailed         1   the cluster reports a failure of its own

Other exit codes: 0 done, 3 too many dead letters, 130 interrupted.

What engines, sources and operators of other packages may raise is described at their protocols.
"""

from headrace.operators.mistakes import (
    DONE,
    FAILED,
    INTERRUPTED,
    TOO_MANY_DEAD,
    USERS_MISTAKE,
    HeadraceError,
    PipelineMistake,
    UserError,
)

__all__ = [
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "TOO_MANY_DEAD",
    "USERS_MISTAKE",
    "ChunksFailed",
    "HeadraceError",
    "PipelineMistake",
    "StorageUnavailable",
    "UserError",
]


class ChunksFailed(HeadraceError):
    """Some chunks failed for a reason that may pass. Committed chunks are kept, and the same command resumes."""


class StorageUnavailable(HeadraceError, OSError):
    """A storage did not answer within the time limit. Nothing is lost: the same command resumes."""
