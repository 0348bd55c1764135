"""From a config and a tree of images to a node folder: forecast, consent, encryption, inspection."""
