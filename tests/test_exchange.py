"""Averages over real processes through real shared memory."""

import multiprocessing

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


@pytest.mark.parametrize("workers", [1, 2, 8, 16, 64])
def test_memory_fits_into_the_little_that_containers_have(workers):
    assert workers * 2 * 4 * chunk_size(workers) <= 16 * 2**20
