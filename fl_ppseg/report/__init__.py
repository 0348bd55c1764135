"""What a run found, for people: the table, the figures and report.html."""
