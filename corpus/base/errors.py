"""Errors a person can act on: what happened, where, and what to do about it."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence

EXIT_USER_ERROR = 2


class UserError(ValueError):
    """A mistake the user can mend.

    ``what`` is the failure, ``where`` the file and key (or command) it concerns, ``fix`` what to do, ``details`` one
    line for each of the many things it is true of. Printed without a traceback by :func:`command`, one line and one
    more, indented, for each detail; the process exits with code 2.
    """

    def __init__(
        self, what: str, *, where: str | None = None, fix: str | None = None, details: Sequence[str] = ()
    ) -> None:
        self.what, self.where, self.fix, self.details = what, where, fix, tuple(details)
        super().__init__(self.one_line())

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive default exception pickling across worker processes.
        return (_rebuild, (self.what, self.where, self.fix, self.details))

    def lines(self) -> list[str]:
        """The error as a terminal shows it."""
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.fix:
            text = f"{text.rstrip('.')}. {self.fix}"
        return [" ".join(text.split()), *(f"  {' '.join(detail.split())}" for detail in self.details)]

    def one_line(self) -> str:
        """The whole error on one line."""
        first, *rest = self.lines()
        return f"{first} {'; '.join(line.strip() for line in rest)}".rstrip()


def _rebuild(what: str, where: str | None, fix: str | None, details: tuple[str, ...] = ()) -> UserError:
    return UserError(what, where=where, fix=fix, details=details)


def nearest(word: str, known: Iterable[str]) -> str:
    """A ' Did you mean ...?' hint for an unknown word, or a list of what exists when nothing is close."""
    options = sorted(known)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{close[0]}'?"
    if len(options) > 16:
        near = difflib.get_close_matches(word, options, n=5, cutoff=0.0)
        return f"Nearest of {len(options)}: {', '.join(near)}."
    return f"Known: {', '.join(options)}." if options else ""


@contextlib.contextmanager
def command() -> Iterator[None]:
    """Wrap a command's main(): user errors become one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        # Texts of a corpus and names of files hold characters that a terminal may not have: they are shown as \\u6570.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except UserError as error:
        print("error: " + "\n".join(error.lines()), file=sys.stderr)
        raise SystemExit(EXIT_USER_ERROR) from None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror or error}", file=sys.stderr)
        raise SystemExit(EXIT_USER_ERROR) from None
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The reader of our output (`| head`) went away; that is not a failure of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
