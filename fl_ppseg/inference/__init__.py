"""Asking a trained model: what a query must be, and the model that answers it. Knows no key."""
