"""What an owner allows its node, and the ledger of what was granted."""
