"""Measuring a run: perplexity on a text, loss on samples it was not trained on, and the tasks of lm-eval-harness."""
