"""Where something went wrong, without what was said about it.

Messages of libraries quote the values that they stumble over: names of patients among them.
"""

from __future__ import annotations

import traceback


def trace_of(error: BaseException) -> str:
    """The kinds of an error and of those that led to it, and the lines of code it passed.

    Example:
        >>> name = "Doe^Jane"
        >>> try:
        ...     int(name)
        ... except ValueError as error:
        ...     told = trace_of(error)
        >>> told.splitlines()[-1]
        'ValueError'
        >>> "Doe" in told
        False
    """
    parts = []
    seen: BaseException | None = error
    while seen is not None:
        parts.append("".join(traceback.format_tb(seen.__traceback__)) + type(seen).__name__)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "\nled to\n".join(reversed(parts))
