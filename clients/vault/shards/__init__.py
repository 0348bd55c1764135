"""From images to encrypted shards and the embedding that reads them, and back to images."""
