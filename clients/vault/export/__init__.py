"""From config and images to a node folder: forecast, consent, encryption, inspection."""
