"""Trains the MobileLLM family on built corpora.

Commands stand here; the rooms below them, from the lowest: base, model, data, distillation, run, hf, evaluation.
A room imports only those before it, and no room imports a command.
"""
