"""What a node gets from its owner: a folder without any key, and what its owner may remove of it."""
