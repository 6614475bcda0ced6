"""The params that the stage `download` reads."""

from typing import Literal

from pydantic import Field

from cifar100.running.params import StageParameters


class DownloadParameters(StageParameters):
    """Which data set, and where the official archive lies."""

    dataset: Literal["cifar100", "synthetic"]
    archive_url: str = Field(
        pattern=r"^https?://\S+$", description="an http:// or https:// address"
    )
    archive_md5: str = Field(
        pattern="^[0-9a-f]{32}$", description="32 lower-case hexadecimal digits, in quotes"
    )
