"""Tokenizers: where they come from, the engines that encode text with them, and packing ids into samples.

In come a recipe's tokenizer settings and texts; out go a tokenizer file with its ids of beginning and end, token ids,
and samples of one length. Text that spells a special token stays text. Imports acquire to documents, no cleaning.
"""
