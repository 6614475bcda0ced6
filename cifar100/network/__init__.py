"""The network from uint8 images to logits, and its files."""
