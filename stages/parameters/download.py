"""The params that the stage `download` reads."""

from dataclasses import dataclass

from stages.parameters.loading import choice, text


@dataclass(frozen=True)
class DownloadParameters:
    """Which data set, and where the official archive lies."""

    dataset: str = choice("cifar100", "synthetic")
    archive_url: str = text(r"https?://\S+", "an http:// or https:// address")
    archive_md5: str = text(r"[0-9a-f]{32}", "32 lower-case hexadecimal digits, in quotes")
