"""A whole comparison on this machine: it wires owners, nodes and the coordinator together."""
