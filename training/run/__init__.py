"""Training: from the command line to checkpoints, metrics and a plot, and on from wherever the run stands.

In: options, recipes, builds. Out: a run's folder (folder.py says what lies in it).
May import: corpus, training.base, training.model, training.data, training.distillation.
"""
