"""What a node gets from its owner: a folder without any key, whose owner may remove it."""
