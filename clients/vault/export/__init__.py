"""Export of images to a node folder: preflight checks, consent, encryption, inspection."""
