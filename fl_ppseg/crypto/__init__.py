"""Keys, ciphers, and what is made of a model under a key.

Strategies, messages, training and attacks may never import anything from here.
"""
