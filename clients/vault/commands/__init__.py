"""The verbs of `python -m clients.vault`, a file a group; what they do lies one folder up."""
