"""Measuring a run: perplexity on a text, loss on samples it was not trained on, and the tasks of lm-eval-harness.

In: a run's folder or a checkpoint. Out: results as JSON, and tables of them.
May import: corpus, training.base, training.model, training.data, training.run.
"""
