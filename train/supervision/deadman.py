"""A dead man's switch that fires without Python: what is left when a call keeps the GIL for good.

POSIX timers do three things after the last `set`, each in C: print a sentence (`warnx` on a thread
of the timer), send this process the signal at which `faulthandler` prints every thread's stack, and
call `_exit` with the code. `faulthandler.dump_traceback_later(exit=True)` would do it too, but ends
with 1, which tells a scheduler not to start again.
"""

from __future__ import annotations

import ctypes
import faulthandler
import signal
import sys

_MONOTONIC = 1  # CLOCK_MONOTONIC: a machine that sleeps is not stuck
_ABSOLUTE = 1  # TIMER_ABSTIME
_BY_SIGNAL, _BY_THREAD = 0, 2  # SIGEV_SIGNAL, SIGEV_THREAD
_SENTENCE_BYTES = 512


class _Event(ctypes.Structure):
    """`struct sigevent` of 64-bit Linux."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signum", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("rest", ctypes.c_char * 32),
    )


class _Times(ctypes.Structure):
    """`struct itimerspec`: all 0 disarms."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns"))


class DeadMan:
    """Unless it is set again in time, this process says a sentence and its stacks and ends with
    `code`.

    A `set` costs some ten microseconds, and two where `slack_s` covers the change. Elsewhere than
    on 64-bit Linux it does nothing: a process whose GIL is kept then hangs until the scheduler ends
    it.
    """

    SIGNUM = 63  # SIGRTMAX - 1 of Linux, which no library we know of uses

    def __init__(self, code: int, *, linger_s: float = 2.0) -> None:
        self._linger_s = linger_s  # for the stacks to reach the log
        self._timers: list[ctypes.c_void_p] = []
        self._times = _Times()
        self._at = 0.0  # time.monotonic() at which it fires; 0 is never
        self._sentence = ctypes.create_string_buffer(_SENTENCE_BYTES)
        if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
            return
        # PyDLL: these calls are too short to be worth letting the GIL go.
        libc = ctypes.PyDLL(None)
        self._library = libc if hasattr(libc, "timer_create") else ctypes.PyDLL("librt.so.1")
        faulthandler.register(self.SIGNUM, file=2, all_threads=True, chain=False)
        address = lambda function: ctypes.cast(function, ctypes.c_void_p).value  # noqa: E731
        said = ctypes.addressof(self._sentence)
        for event in (
            _Event(value=said, notify=_BY_THREAD, function=address(libc.warnx)),
            _Event(signum=self.SIGNUM, notify=_BY_SIGNAL),
            _Event(value=code, notify=_BY_THREAD, function=address(libc._exit)),
        ):
            timer = ctypes.c_void_p()
            if self._library.timer_create(_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)):
                raise OSError("timer_create failed: raise the limit of pending signals (ulimit -i)")
            self._timers.append(timer)

    def set(self, at: float, sentence: str, *, slack_s: float = 0.0) -> None:
        """Fire at this `time.monotonic()` instead, give or take `slack_s`; 0 is never.

        `sentence` is cut at 511 bytes.
        """
        encoded = sentence.encode(errors="replace")[: _SENTENCE_BYTES - 1]
        self._sentence.value = encoded.replace(b"%", b"/")  # warnx takes a format
        if at == self._at or (at and self._at and abs(at - self._at) <= slack_s):
            return
        self._at = at
        for timer, later_s in zip(self._timers, (0.0, 0.1, self._linger_s), strict=False):
            whole, part = divmod(at + later_s, 1) if at else (0.0, 0.0)
            self._times.at_s, self._times.at_ns = int(whole), int(part * 1e9)
            self._library.timer_settime(timer, _ABSOLUTE, ctypes.byref(self._times), None)

    def close(self) -> None:
        """Never fire. Call it once, at the end."""
        for timer in self._timers:
            self._library.timer_delete(timer)
        if self._timers:
            faulthandler.unregister(self.SIGNUM)
            # A signal that was sent just before must not end a process that is well.
            signal.signal(self.SIGNUM, signal.SIG_IGN)
        self._timers = []
