"""Faults, injected into a federation whose nodes run in network namespaces of one machine.

    sudo python -m benchmarks.faults [--clients 3] [--faults cut,disk] [--folder DIR]

A federation of training clients and one val client is built with the commands that its people would
type, and trained once undisturbed and then, from the same start, once for each fault. Prints a row
of the table of docs/faults.md for each.
"""
