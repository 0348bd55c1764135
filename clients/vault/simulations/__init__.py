"""What simulations store in the vaults of this machine."""
