"""The weights that come with the package, made by `python -m fl_ppseg.pretrain`."""

from pathlib import Path

WEIGHTS = Path(__file__).parents[1] / "weights"
"""Made from public, procedural scenes."""
SHIPPED = "shipped"
"""What a config calls them."""


def shipped_weights(reads: str | None, *, pixel_head: bool = False) -> Path:
    """The package's own weights.

    Args:
        reads: What the embedding reads, of `arm_models.embedding_reads`; None: images as they are.
        pixel_head: Whether the model has a pixel head.

    Returns:
        The file for this, or the one without a pixel head, or for images, where the package has
        none.
    """
    plain = "setr_procedural"
    own = plain if reads is None else f"{plain}_{reads}"
    names = [f"{own}_pixel-head"] * pixel_head + [own]
    files = (WEIGHTS / f"{name}.safetensors" for name in names)
    return next((file for file in files if file.is_file()), WEIGHTS / f"{plain}.safetensors")
