"""Trains the MobileLLM family on built corpora: sizes, model, export and import."""
