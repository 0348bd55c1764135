"""Images and label maps: how they lie on disk, their classes, views, blocks, partition and shards."""
