"""A comparison over several models: every combination of the values in `cells` is a run of its own.

<out>/config.yaml                the comparison as it was given
<out>/<cell>/                    an ordinary run folder per cell, one after the other
<out>/cells.json  index.html     the table over all cells
"""
