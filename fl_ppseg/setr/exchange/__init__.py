"""SETR of other programs: checkpoints of mmsegmentation come in, ONNX files go out.

The package re-exports nothing, and is no part of the bundle that Flower ships to nodes.
"""
