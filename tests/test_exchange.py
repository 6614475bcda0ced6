"""Averages over real processes through real shared memory."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from stages.training.exchange import CHUNK, Exchange, create

SHAPES = [(3,), (2, 5), (CHUNK,), (7, CHUNK // 5)]  # together more than one chunk, unevenly cut


def arrays_of(worker: int, turn: int) -> list[np.ndarray]:
    rng = np.random.default_rng([worker, turn])
    return [rng.standard_normal(shape, np.float32) for shape in SHAPES]


def average_three_times(name, worker, workers, results) -> None:
    exchange = Exchange(name, worker, workers)
    for turn in range(3):
        arrays = arrays_of(worker, turn)
        exchange.average(arrays)
        results.put((worker, turn, arrays))


@pytest.mark.parametrize("workers", [2, 3])
def test_each_worker_gets_the_mean_and_the_same_bits(workers):
    context = multiprocessing.get_context("spawn")
    memory, results = create(workers), context.Queue()
    processes = [
        context.Process(target=average_three_times, args=(memory.name, rank, workers, results))
        for rank in range(workers)
    ]
    for process in processes:
        process.start()
    found = {}
    for _ in range(3 * workers):
        worker, turn, arrays = results.get(timeout=60)
        found[worker, turn] = arrays
    for process in processes:
        process.join()
    memory.close()
    memory.unlink()
    for turn in range(3):
        shown = [arrays_of(worker, turn) for worker in range(workers)]
        for worker in range(workers):
            for index, array in enumerate(found[worker, turn]):
                expected = np.mean([arrays[index] for arrays in shown], axis=0)
                np.testing.assert_allclose(array, expected, atol=1e-6)
                np.testing.assert_array_equal(array, found[0, turn][index])


def wait_for_nobody(name) -> None:
    Exchange(name, 0, 2).average([np.zeros(1, np.float32)])


def leave_a_child(name, child_pid) -> None:
    child = multiprocessing.get_context("spawn").Process(target=wait_for_nobody, args=(name,))
    child.start()
    child_pid.put(child.pid)
    time.sleep(60)


def test_worker_ends_when_its_parent_is_killed():
    context = multiprocessing.get_context("spawn")
    memory, child_pid = create(2), context.Queue()
    parent = context.Process(target=leave_a_child, args=(memory.name, child_pid))
    parent.start()
    child = child_pid.get(timeout=60)
    time.sleep(2)  # it imports NumPy and begins to wait
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    deadline = time.monotonic() + 10
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(child)
    memory.close()
    memory.unlink()


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().split()[2] != "Z"
    except FileNotFoundError:
        return False
