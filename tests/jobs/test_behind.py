"""Work behind the caller's: in order, bounded, and with its errors."""

import threading

import pytest

from sdist.jobs.behind import behind


def test_work_is_done_in_order_by_one_other_thread_before_the_block_ends() -> None:
    done, threads = list[int](), set[int]()

    def work(number: int) -> None:
        done.append(number)
        threads.add(threading.get_ident())

    with behind(2) as later:
        for number in range(20):
            later(work, number)
    assert done == list(range(20))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_the_caller_goes_on_until_so_many_wait() -> None:
    free, begun = threading.Event(), threading.Event()
    calls = list[int]()

    def hold() -> None:
        begun.set()
        free.wait()

    def caller() -> None:
        with behind(2) as later:
            for number in range(3):
                later(hold)
                calls.append(number)

    thread = threading.Thread(target=caller)
    thread.start()
    begun.wait()
    thread.join(0.2)
    assert calls == [0, 1]  # the third waits
    free.set()
    thread.join()
    assert calls == [0, 1, 2]


@pytest.mark.parametrize("more", [0, 3])
def test_an_error_comes_out_at_a_later_call_or_at_the_end(more: int) -> None:
    def fail() -> None:
        raise OSError("no space")

    done = list[int]()

    def caller() -> None:
        with behind(1) as later:
            later(fail)
            for number in range(more):
                later(done.append, number)

    with pytest.raises(OSError, match="no space"):
        caller()
    assert not done  # a call that waits for its turn raises instead


def test_what_was_given_is_done_where_the_block_ends_by_an_error() -> None:
    done = list[int]()

    def caller() -> None:
        with behind(4) as later:
            for number in range(4):
                later(done.append, number)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        caller()
    assert done == [0, 1, 2, 3]
