"""Who holds which images: the partition of a data set among training clients.

Every image goes to exactly one client; every client gets at least two, one to train on and one
held out. The result depends on the names and the seed only, not on the order in which they come.
"""
