"""The local update, and what its result is worth: evaluation, scores, baselines and intervals."""
