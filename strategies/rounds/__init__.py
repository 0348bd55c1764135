"""The rounds of a run: Flower's loop, who is there, who is asked, who answered what."""
