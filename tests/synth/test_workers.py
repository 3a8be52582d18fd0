import errno
import os
import signal
import time

import pytest

from augforge.data.notes import Note
from augforge.synth import workers as workers_of_synth
from augforge.synth.workers import in_order, in_order_by_threads
from augforge.types import InputError, LackError, UnreadablePicture


def _later_is_faster(job, item):
    time.sleep((job - item) * 0.005)
    return item * item, os.getpid()


def test_results_come_in_order_from_several_processes():
    found = list(in_order(_later_is_faster, 20, range(20), 2))
    assert [value for value, _ in found] == [i * i for i in range(20)]
    assert os.getpid() not in {pid for _, pid in found}
    assert 1 <= len({pid for _, pid in found}) <= 2


def test_results_come_in_order_from_several_threads_of_this_process():
    found = list(in_order_by_threads(_later_is_faster, 20, range(20), 4))
    assert found == [(i * i, os.getpid()) for i in range(20)]
    assert list(in_order_by_threads(_later_is_faster, 3, [], 0)) == []
    results = in_order_by_threads(_fail_at, 4, range(100), 3)
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(UnreadablePicture, match=r"the picture '4.png' is torn"):
        next(results)


@pytest.mark.parametrize("workers", [0, 1])
def test_one_worker_is_this_process(workers):
    assert list(in_order(_later_is_faster, 3, range(3), workers)) == [(i * i, os.getpid()) for i in range(3)]


@pytest.mark.parametrize("workers", [1, 2])
def test_no_items_have_no_results(workers):
    assert list(in_order(_later_is_faster, 3, [], workers)) == []


def test_without_semaphores_one_process_does_the_work(monkeypatch):
    def refuse(*given):
        raise OSError(found[-1], os.strerror(found[-1]))

    found = []
    monkeypatch.setattr(workers_of_synth, "ProcessPoolExecutor", refuse)
    for number in (errno.EROFS, errno.EACCES, errno.ENOSPC, errno.ENOSYS):
        found.append(number)
        with pytest.warns(Note, match="--workers 2: this machine has no semaphores for several processes"):
            assert list(in_order(_later_is_faster, 3, range(3), 2)) == [(i * i, os.getpid()) for i in range(3)]
    found.append(errno.EMFILE)
    with pytest.raises(OSError, match="Too many open files"):
        list(in_order(_later_is_faster, 3, range(3), 2))


def _fail_at(job, item):
    if item == job:
        raise UnreadablePicture(f"{item}.png", "is torn")
    return item


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_is_raised_at_its_item(workers):
    results = in_order(_fail_at, 4, range(100), workers)
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(UnreadablePicture, match=r"the picture '4.png' is torn") as caught:
        next(results)
    assert caught.value.exit_code == InputError.exit_code


def _die_at(job, item):
    if item == job:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_worker_that_is_killed_is_told_of():
    with pytest.raises(LackError, match="a worker process was killed; is there enough memory"):
        list(in_order(_die_at, 5, range(30), 2))


def test_only_a_few_items_are_begun_ahead():
    taken = []

    def items():
        for i in range(100):
            taken.append(i)
            yield i

    results = in_order(_fail_at, -1, items(), 2)
    next(results)
    assert len(taken) <= 7
    results.close()
    assert len(taken) <= 7


def _what_a_worker_has(job, item):
    import cv2
    import torch

    return torch.get_num_threads(), cv2.getNumThreads(), signal.getsignal(signal.SIGINT), job


def test_a_worker_has_one_thread_and_ignores_ctrl_c():
    found = list(in_order(_what_a_worker_has, "job", range(2), 2))
    assert found == [(1, 1, signal.SIG_IGN, "job")] * 2


def _unpicklable(job, item):
    return lambda: None


def test_a_result_that_cannot_be_sent_is_an_error_not_a_hang():
    with pytest.raises(Exception, match=r"(?i)pickle|local object"):  # as Python 3.11 and 3.13 word it
        list(in_order(_unpicklable, 0, range(3), 2))
