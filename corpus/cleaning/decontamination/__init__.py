"""Finding documents that share text with evaluation sets."""
