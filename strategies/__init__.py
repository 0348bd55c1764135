"""What runs where neither keys nor images may ever be: the coordinator's side."""
