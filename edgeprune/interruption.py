"""SIGINT and SIGTERM: none is lost, and the first one may wait for a good moment."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

GRACE_S = 8.0  # after which the moment was not good enough
AGAIN_S = 0.1  # in which a finalizer is over


@contextlib.contextmanager
def none_lost() -> Iterator[None]:
    """Within, a signal whose exception was dropped or exchanged for another one still counts.

    Python drops those of finalizers and of callbacks of weak references, of which torch's exporter
    has many: there the signal comes once more. A C library whose import is cut off makes an
    ImportError of it: the signal's own exception leaves this.
    """
    before = sys.unraisablehook

    def again(dropped: sys.UnraisableHookArgs) -> None:
        for kind, number in ((KeyboardInterrupt, signal.SIGINT), (SystemExit, signal.SIGTERM)):
            if issubclass(dropped.exc_type, kind):
                later = threading.Timer(AGAIN_S, os.kill, (os.getpid(), number))
                later.daemon = True
                return later.start()
        before(dropped)

    sys.unraisablehook = again
    try:
        yield
    except Exception as error:
        if signalled := behind(error):
            raise signalled from None
        raise
    finally:
        sys.unraisablehook = before


def behind(error: BaseException | None) -> BaseException | None:
    """The exception of a signal that an error was made of, if it was."""
    while error is not None and not isinstance(error, (KeyboardInterrupt, SystemExit)):
        error = error.__cause__ or error.__context__
    return error


@contextlib.contextmanager
def at_a_good_moment() -> Iterator[Callable[[], bool]]:
    """Within, the first signal only answers whether one came; the caller then leaves soon.

    On leaving, the signal that waited does what it would have done at once. A second one does so
    wherever the caller is, as does the first after `GRACE_S`. Where this is not the main thread,
    or somebody chose to ignore a signal, nothing is changed.
    """
    came: list[int] = []

    def wait(number: int, _: FrameType | None) -> None:
        restore()
        came.append(number)
        patience = threading.Timer(GRACE_S, _again, (number, left))
        patience.daemon = True
        patience.start()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    left = threading.Event()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler not in (None, signal.SIG_IGN):
                before[number] = handler
                signal.signal(number, wait)
    try:
        yield lambda: bool(came)
    finally:
        left.set()
        restore()
    if came:
        signal.raise_signal(came[0])


def _again(number: int, left: threading.Event) -> None:
    if not left.is_set():
        os.kill(os.getpid(), number)
