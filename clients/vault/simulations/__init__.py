"""What simulations keep in the vaults of this machine."""
