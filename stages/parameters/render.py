"""The params that the stage `render` reads."""

from dataclasses import dataclass

from stages.parameters.loading import whole


@dataclass(frozen=True)
class RenderParameters:
    """How the figures look."""

    figure_dpi: int = whole(30, 600)
    gallery_images: int = whole(1, 100)
