"""Images and label maps: on disk, their classes, views, blocks, partition and shards."""
