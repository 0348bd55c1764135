"""The weights that come with the package, made by `python -m fl_ppseg.pretrain`."""

from pathlib import Path

WEIGHTS = Path(__file__).parents[1] / "weights"
"""Made from public, procedural scenes."""
SHIPPED = "shipped"
"""What a config calls them."""


def shipped_weights(reads: str | None) -> Path:
    """The package's own weights.

    Args:
        reads: What the embedding reads, of `arm_models.embedding_reads`; None: images as they are.

    Returns:
        The file for this, or the one for images where the package has none.
    """
    plain = WEIGHTS / "setr_procedural.safetensors"
    own = plain if reads is None else WEIGHTS / f"setr_procedural_{reads}.safetensors"
    return own if own.is_file() else plain
