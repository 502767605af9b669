"""No signal is lost; the first waits for a good moment, the second does not."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from edgeprune import interruption
from edgeprune.interruption import at_a_good_moment, none_lost

SIGNALS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """As the command has them; whoever starts the tests may ignore SIGINT."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = [
        (signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler)),
        (signal.SIGTERM, signal.signal(signal.SIGTERM, end)),
    ]
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_the_moment(number: signal.Signals) -> None:
    done = []
    with pytest.raises(SIGNALS[number]), at_a_good_moment() as asked:
        assert not asked()
        signal.raise_signal(number)
        done.append("the rest of the step")
        assert asked()
    assert done


@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_one_does_not_wait(second: signal.Signals) -> None:
    with pytest.raises(SIGNALS[second]), at_a_good_moment():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(second)
        pytest.fail("went on")


def test_the_moment_does_not_last_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "GRACE_S", 0.05)
    with pytest.raises(KeyboardInterrupt), at_a_good_moment():
        signal.raise_signal(signal.SIGINT)
        while True:
            time.sleep(0.01)


def test_what_is_told_to_wait_is_forgotten_when_the_moment_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interruption, "GRACE_S", 0.05)
    with pytest.raises(KeyboardInterrupt), at_a_good_moment():
        signal.raise_signal(signal.SIGINT)
    time.sleep(0.2)  # no second KeyboardInterrupt


def test_handlers_are_as_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with at_a_good_moment():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with pytest.raises(ValueError, match="its own"), at_a_good_moment():
        raise ValueError("its own")
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_a_finalizer_comes_again(number: signal.Signals) -> None:
    class Dropped:
        def __del__(self) -> None:
            signal.raise_signal(number)
            pytest.fail("went on")

    with pytest.raises(SIGNALS[number]), none_lost():
        Dropped()
        threading.Event().wait(60)
        pytest.fail("it was lost")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_became_another_error_is_still_one(number: signal.Signals) -> None:
    def load() -> None:
        try:
            signal.raise_signal(number)
        except BaseException as error:  # as C libraries do while they are imported
            raise ImportError("initialization failed") from error

    with pytest.raises(SIGNALS[number]), none_lost():
        try:
            load()
        except ImportError:
            raise ValueError("no such model") from None
    with pytest.raises(ValueError, match="its own"), none_lost():
        raise ValueError("its own")


def test_what_else_a_finalizer_drops_is_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dropped:
        def __del__(self) -> None:
            raise ValueError("odd")

    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: told.append(dropped.exc_type))
    with none_lost():
        Dropped()
    assert told == [ValueError]


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with at_a_good_moment() as asked:
        signal.raise_signal(signal.SIGINT)
        assert not asked()


def test_a_handler_that_goes_on_is_let_go_on() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    with at_a_good_moment() as asked:
        signal.raise_signal(signal.SIGTERM)
        assert asked()
        assert heard == []
    assert heard == [signal.SIGTERM]


def test_another_thread_than_the_main_one_is_left_alone() -> None:
    told: list[bool] = []

    def work() -> None:
        with at_a_good_moment() as asked:
            told.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [False]
