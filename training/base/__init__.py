"""What every room of training uses and none of them is about: a progress bar, this process's memory.

In: counts. Out: lines on stderr, numbers. May import: corpus.base.
"""
