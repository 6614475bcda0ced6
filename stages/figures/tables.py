"""Reads the tables that the figures are drawn from."""

from pathlib import Path

import pandas as pd

from stages.running.errors import PipelineError


def read_table(path: Path) -> pd.DataFrame:
    """A CSV file with a header and at least one row, else `PipelineError`; empty cells are ''."""
    try:
        table = pd.read_csv(path, keep_default_na=False)
    except FileNotFoundError:
        raise PipelineError(f"{path}: not found; run `dvc repro`") from None
    except (ValueError, OSError) as error:
        raise PipelineError(f"{path}: not a CSV table ({error})") from None
    if table.empty:
        raise PipelineError(f"{path}: has no rows; run `dvc repro`")
    return table
