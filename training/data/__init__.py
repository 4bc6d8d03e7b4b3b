"""From a build's streams to the batches of a phase, the same samples at every step however many processes read them.

In: stream folders, weights, a seed. Out: a loader with an exact position, single shards, the demands of a phase.
May import: corpus, training.base, training.model.
"""
