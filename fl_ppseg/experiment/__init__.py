"""A comparison on one machine: owners, nodes and coordinator wired together."""
