"""The decoder in plain PyTorch: every architecture of the family, and the loss that never holds all logits at once."""

from training.model.cross_entropy import CHUNK, IGNORE, cross_entropy
from training.model.decoder import Attention, Block, FeedForward, MobileLM, RMSNorm, Rope

__all__ = ["CHUNK", "IGNORE", "Attention", "Block", "FeedForward", "MobileLM", "RMSNorm", "Rope", "cross_entropy"]
