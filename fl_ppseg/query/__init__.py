"""Who asks a model: ephemeral keys, and images that become queries under them.

ephemeral    encryption under ephemeral keys, and an embedding adapted to one
asking       an image -> what is sent to a model
client       one key for many images, and the model that reads them
own_training an arm's model, queries and encryption of batches, for a loop of one's own
"""
