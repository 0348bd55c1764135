"""The owner's policy for its node, the check of requests against it, and the ledger of answers."""
