"""Preflight: images and label maps are scanned and checked before any work starts."""
