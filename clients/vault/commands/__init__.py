"""The verbs of `python -m clients.vault`: their options and output, one module per group."""
