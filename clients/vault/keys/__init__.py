"""Keys in files, from the first day to the last: made, backed up, rotated, retired, erased."""
