"""The decoder in plain PyTorch: every architecture of the family, and the loss that never holds all logits at once."""
