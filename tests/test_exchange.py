"""Averages over real processes through real shared memory."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from stages.training.exchange import CHUNK, Exchange, chunk_size, create

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


@pytest.fixture
def memory(request):
    created = create(getattr(request, "param", 2))
    yield created
    created.close()
    created.unlink()


@pytest.mark.parametrize(("memory", "workers"), [(2, 2), (3, 3)], indirect=["memory"])
def test_each_worker_gets_the_mean_and_the_same_bits(memory, workers):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    for rank in range(workers):
        arguments = (memory.name, rank, workers, results)
        context.Process(target=average_three_times, args=arguments, daemon=True).start()
    found = {}
    for _ in range(3 * workers):
        worker, turn, arrays = results.get(timeout=60)
        found[worker, turn] = arrays
    for turn in range(3):
        shown = [arrays_of(worker, turn) for worker in range(workers)]
        for worker in range(workers):
            for index, array in enumerate(found[worker, turn]):
                expected = np.mean([arrays[index] for arrays in shown], axis=0)
                np.testing.assert_allclose(array, expected, atol=1e-6)
                np.testing.assert_array_equal(array, found[0, turn][index])


def wait_for_nobody(name, waiting) -> None:
    exchange = Exchange(name, 0, 2)
    waiting.put(os.getpid())
    exchange.average([np.zeros(1, np.float32)])


def leave_a_child(name, waiting) -> None:
    context = multiprocessing.get_context("spawn")
    context.Process(target=wait_for_nobody, args=(name, waiting)).start()
    time.sleep(60)


def test_worker_ends_when_its_parent_is_killed(memory):
    context = multiprocessing.get_context("spawn")
    waiting = context.Queue()
    parent = context.Process(target=leave_a_child, args=(memory.name, waiting))
    parent.start()
    child = waiting.get(timeout=60)
    assert is_running(child)
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    deadline = time.monotonic() + 10
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    ended = not is_running(child)
    if not ended:
        os.kill(child, signal.SIGKILL)
    assert ended


@pytest.mark.parametrize("workers", [1, 2, 8, 16, 64])
def test_memory_fits_into_the_little_that_containers_have(workers):
    assert workers * 2 * 4 * chunk_size(workers) <= 16 * 2**20


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().split()[2] != "Z"
    except FileNotFoundError:
        return False
