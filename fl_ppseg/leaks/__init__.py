"""What an audit found, as data and in words: the audit writes it, the report of a run reads it."""
