"""Tests that need PyTorch, which only the benchmarks install."""

import pytest

from benchmarks import throughput
from tests.conftest import ROOT

TORCH_PYTHON = ROOT / throughput.TORCH_PYTHON
needs_torch = pytest.mark.skipif(not TORCH_PYTHON.is_file(), reason="`make bench` installs torch")
