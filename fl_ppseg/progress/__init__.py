"""What a person sees while a command runs: a live view, plain lines, or nothing."""
