"""How updates and weights travel: as they are, or as changes in fewer bytes (`training.codec`)."""
