"""What several rooms of training use and none of them is about: a bar of progress, the memory of this process.

In: counts. Out: lines on stderr, numbers. May import: corpus.base.
"""
