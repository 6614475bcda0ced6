"""The engine's memory serves again, and tensors are found where they are."""

import gc

import numpy as np
import paddle
import pytest

from cifar100.network import onednn
from cifar100.network.memory import ALIGNMENT, Checked, Memory, View, keep_memory_for
from cifar100.network.resnet import ResNetConfig
from tests.engine import STATM, bytes_in_use, some_images, some_network


def test_memory_that_is_in_use_is_shared_with_nobody():
    blocks = [Memory(1000) for _ in range(5)]
    for value, block in enumerate(blocks):
        block.bytes[:] = value
    assert [set(block.bytes) for block in blocks] == [{0}, {1}, {2}, {3}, {4}]
    assert all(block.address % ALIGNMENT == 0 for block in blocks)


def test_free_memory_serves_the_next_of_its_size_lowest_address_first():
    keep_memory_for("this test")
    blocks = [Memory(1000) for _ in range(4)]
    addresses = sorted(block.address for block in blocks)
    del blocks[2], blocks[0], blocks
    other = Memory(1001)
    assert other.address not in addresses
    assert [block.address for block in [Memory(1000) for _ in range(4)]] == addresses


@pytest.mark.skipif(not STATM.is_file(), reason="only Linux tells how much memory is in use")
def test_memory_kept_for_one_use_is_given_back_for_another():
    keep_memory_for("large images")
    large = Memory(200_000_000)
    large.clear()
    before = bytes_in_use()
    del large
    keep_memory_for("large images")
    assert bytes_in_use() > before - 50_000_000
    keep_memory_for("small images")
    assert bytes_in_use() < before - 150_000_000


@pytest.mark.skipif(not onednn.available(), reason=onednn.description())
@pytest.mark.skipif(not STATM.is_file(), reason="only Linux tells how much memory is in use")
def test_network_that_is_gone_leaves_no_memory_behind():
    def train_one() -> None:
        network = some_network(ResNetConfig(20, 8))
        network.train()
        network(some_images(8, 32, 32)).sum().backward()
        del network
        gc.collect()

    for _ in range(3):
        train_one()
    before = bytes_in_use()
    for _ in range(8):
        train_one()
    assert bytes_in_use() < before + 8_000_000


def test_tensor_is_checked_when_it_is_another_one_or_has_moved():
    checked, tensor = Checked((2, 3)), paddle.ones([2, 3])
    assert checked.address(tensor) == checked.address(tensor) == tensor.data_ptr()
    with pytest.raises(ValueError, match=r"expected float32 values of shape \(2, 3\)"):
        checked.address(paddle.ones([3, 2]))
    assert checked.address(tensor) == tensor.data_ptr()
    paddle.zeros([2, 3], "float64")._share_buffer_to(tensor)
    with pytest.raises(ValueError, match=r"not paddle.float64"):
        checked.address(tensor)


def test_view_follows_a_tensor_that_moves():
    tensor = paddle.zeros([3])
    view = View(tensor)
    values = view.array()
    values += 1
    assert tensor.tolist() == [1, 1, 1]
    assert view.array() is values
    paddle.to_tensor([5.0, 6.0, 7.0])._share_buffer_to(tensor)
    np.testing.assert_array_equal(view.array(), [5, 6, 7])
