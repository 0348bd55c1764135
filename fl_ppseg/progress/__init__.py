"""Progress of a command: a live view, plain lines, or nothing."""
