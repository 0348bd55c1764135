"""The segmentation service: encrypted queries in, label maps out. It holds no key."""
