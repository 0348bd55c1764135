"""Message transport between a ServerApp and its ClientApps, and all use of Flower's private names.

Both engines run the same two apps and give the same weights: `ray` is Flower's simulation on Ray, a
process for each core; `in-process` calls the ClientApp in this process, for tests and a single GPU.
"""
