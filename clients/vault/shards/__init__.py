"""Encrypted shards and the embeddings that read them: made from images, and decrypted again."""
