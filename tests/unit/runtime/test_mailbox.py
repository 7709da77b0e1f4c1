"""The mailbox of a stream: the newest frame, each loss told, no waiting for whoever puts."""

from __future__ import annotations

import threading

import pytest

from edgekit.runtime.mailbox import MAX_NOTICES, Mailbox, TimedOutError


def test_the_newest_frame_wins_and_losses_are_told():
    """What was not taken is overwritten, `put` says so each time, and a frame is taken once."""
    box = Mailbox()
    assert [box.put(number) for number in range(4)] == [False, True, True, True]
    assert box.take() == 3
    assert not box.put(4)
    assert box.take() == 4
    with pytest.raises(TimedOutError):
        box.take(timeout_s=0)


def test_notices_come_first_in_order_and_are_never_overwritten():
    """An error of a file is heard even where a frame came after it."""
    box = Mailbox()
    box.put("old")
    assert box.note("first")
    assert box.note("second")
    box.put("new")
    assert [box.take() for _ in range(3)] == ["first", "second", "new"]


def test_notices_are_bounded():
    """A camera that gives nothing but damage does not fill the memory, and whoever notes is told that there was no room."""
    box = Mailbox()
    assert all(box.note(number) for number in range(MAX_NOTICES))
    assert not box.note("too many")
    assert box.take() == 0
    assert box.note("room again")


def test_what_is_inside_is_taken_after_close_and_then_it_ends():
    """Closing loses nothing that was put before; what is put after it is lost, and said to be."""
    box = Mailbox()
    box.put("last")
    box.close()
    assert box.put("after")
    assert not box.note("after")
    assert box.take() == "last"
    assert box.take() is None


def test_the_first_error_it_was_closed_with_comes_out_last():
    """The taker gets the last frame, then the error, each time it asks."""
    box = Mailbox()
    box.put("last")
    box.close(ValueError("unplugged"))
    box.close(ValueError("second"))
    assert box.take() == "last"
    for _ in range(2):
        with pytest.raises(ValueError, match="unplugged"):
            box.take()


def test_discard_throws_away_what_was_not_taken():
    """What waits at the end is counted by whoever ends it."""
    box = Mailbox()
    assert not box.discard()
    box.put(1)
    assert box.discard()
    box.close()
    assert box.take() is None


def test_close_wakes_whoever_waits():
    """Nobody waits for ever for a source that has ended."""
    box, got = Mailbox(), []
    taker = threading.Thread(target=lambda: got.append(box.take()))
    taker.start()
    box.close()
    taker.join(timeout=10)
    assert got == [None]


def test_under_two_threads_every_frame_is_taken_or_told_lost_and_order_holds():
    """Taken + lost = put, and no frame comes after one that is newer."""
    box, count, lost, taken = Mailbox(), 20_000, [], []

    def put():
        lost.extend(number for number in range(count) if box.put(number))
        box.close()

    putter = threading.Thread(target=put)
    putter.start()
    while (item := box.take(timeout_s=10)) is not None:
        taken.append(item)
    putter.join(timeout=10)
    assert taken == sorted(set(taken))
    assert taken[-1] == count - 1
    assert len(taken) + len(lost) == count
