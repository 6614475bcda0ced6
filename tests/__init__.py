"""The tests."""

import stages  # noqa: F401  answers `python -m tests.verify` and the like, which lie in tools/
