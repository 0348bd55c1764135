"""Keys in files and their life cycle: generation, backup, rotation, retirement, erasure."""
