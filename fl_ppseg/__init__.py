"""Federated semantic segmentation on perceptually encrypted images, without key sharing."""

__version__ = "0.1.0"
