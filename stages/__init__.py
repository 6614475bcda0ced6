"""The pipeline: one folder per stage, each run as `python -m stages.NAME`."""

import sys
from typing import Any

MOVED = {
    "stages.predict": "cifar100.predict",
    "stages.compare": "tools.compare",
    "stages.training.lr_range": "tools.lr_range",
    "stages.network.summary": "tools.summary",
    "stages.parameters.check": "tools.check_params",
    "stages.figures.offline_plots": "tools.plots",
    "tests.check_lock": "tools.check_lock",
    "tests.verify": "tools.verify",
}


class MovedCommands:
    """Ends `python -m OLD` with one line that names the new command; other imports just fail."""

    @staticmethod
    def find_spec(name: str, _path: Any = None, _target: Any = None) -> None:
        """Called by `import` for what is not found; `python -m` has argv[0] `-m` at that time."""
        for old, new in MOVED.items():
            if sys.argv[0] == "-m" and old in sys.orig_argv and (old + ".").startswith(name + "."):
                print(f"error: `python -m {old}` is now `python -m {new}`", file=sys.stderr)
                sys.exit(2)


sys.meta_path.append(MovedCommands)
