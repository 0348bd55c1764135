"""From the replies of a round to the next weights."""
