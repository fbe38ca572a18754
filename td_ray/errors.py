"""One exception tree. Every message says what is wrong, where, and what to do about it."""

from __future__ import annotations


class TdRayError(Exception):
    """Base of all errors that td-ray raises on purpose; shown without a traceback."""


class InputError(TdRayError):
    """Bad input that can be seen before work starts; the command line exits with code 2."""


class WorkError(TdRayError):
    """Something found while working on one unit; it costs that unit a row in ``failures``."""


class MachineError(TdRayError):
    """Trouble that is no unit's own: a device that is not there, a file changed under way.

    The unit stays missing, so that the next run tries it again.
    """


class RunError(TdRayError):
    """Every unit of a run failed, or the run could not go on; exit code 1."""


class SkippedSamplesWarning(UserWarning):
    """Samples that cannot be read were left out of a data set, as the experiment asked."""


class PartialMatrixWarning(UserWarning):
    """A matrix was read while some of its pairs are still missing or have failed."""


def error_text(error: BaseException) -> str:
    """An error in one line; of one that was not foreseen, its kind matters too."""
    return str(error) if isinstance(error, TdRayError) else f"{type(error).__name__}: {error}"
