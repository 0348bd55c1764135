"""The local update, and evaluation: scores, baselines and intervals."""
