"""What an owner agrees to before anything is encrypted, and the floor that no config goes below."""
