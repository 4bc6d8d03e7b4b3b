"""The decoder in plain PyTorch: every architecture of the family, and the loss that never holds all logits at once.

In: a size's name and the recipe's overrides. Out: a ModelConfig (without torch), a MobileLM, its loss.
May import: corpus, training.base.
"""
