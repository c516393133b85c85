"""What a trial prints and logs, in a file of its own."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

from kerzoo.records import timestamp


@contextlib.contextmanager
def logged_to(path: Path, place: str) -> Iterator[None]:
    """Append standard output, standard error, logging and an exception's traceback to a file.

    For a process that does one thing at a time: the streams are the process's.

    Args:
        path: The log; its folder exists.
        place: Where the process runs.

    Raises:
        Exception: Whatever the block raises, after it was logged.
    """
    with path.open("a", encoding="utf-8", buffering=1) as log:
        handler = logging.StreamHandler(log)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        print(f"--- begun {timestamp()} on {place}", file=log)
        try:
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                yield
        except Exception:
            traceback.print_exc(file=log)
            raise
        finally:
            print(f"--- left {timestamp()}", file=log)
            logging.getLogger().removeHandler(handler)
