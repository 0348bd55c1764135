"""Which attack is run by whom, on what."""
