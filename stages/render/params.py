"""The params that the stage `render` reads."""

from pydantic import Field

from cifar100.results.class_maps import MAX_ERRORS
from cifar100.running.params import StageParameters


class RenderParameters(StageParameters):
    """How the figures look."""

    figure_dpi: int = Field(ge=30, le=600)
    gallery_images: int = Field(ge=1, le=MAX_ERRORS)
