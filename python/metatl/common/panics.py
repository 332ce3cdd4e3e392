"""Keeping the reports of panics in Rust libraries off the terminal, where they become errors of one line."""

from __future__ import annotations

import os
import tempfile
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_STDERR = 2
_one_at_a_time = threading.RLock()


@contextmanager
def reports_of_panics_dropped() -> Iterator[None]:
    """Hold back what is written to the file descriptor of stderr, and drop it if it reports a panic.

    A library in Rust writes a report to stderr before the panic becomes an exception, and nothing in Python
    can turn that off. What other threads write in the meantime is written a moment later.
    """
    with _one_at_a_time:
        try:
            stderr = os.dup(_STDERR)
        except OSError:
            # A daemon may have no stderr.
            yield
            return
        with tempfile.TemporaryFile() as held:
            os.dup2(held.fileno(), _STDERR)
            try:
                yield
            finally:
                os.dup2(stderr, _STDERR)
                os.close(stderr)
                held.seek(0)
                text = held.read()
                if text and b"panicked at" not in text:
                    os.write(_STDERR, text)
