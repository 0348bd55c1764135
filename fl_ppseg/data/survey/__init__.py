"""What images and label maps hold, found out before anything is encrypted, trained or scored."""
