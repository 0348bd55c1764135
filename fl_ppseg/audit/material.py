"""What an arm of a run leaves in whose hands."""
