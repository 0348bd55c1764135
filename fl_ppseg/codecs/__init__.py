"""How an update travels: as it is, or as a change in fewer bytes (`training.codec`)."""
