"""Tokenizers: where they come from, and the engines that encode text with them."""
