"""What runs where images and keys live: the owner's vault and the training node."""
