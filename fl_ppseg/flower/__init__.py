"""What carries messages between one ServerApp and many ClientApps on one machine.

Both engines run the same two apps and give the same weights: `ray` is Flower's simulation on Ray, a
process for each core; `in-process` calls the ClientApp in this process, for tests and a single GPU.
"""
