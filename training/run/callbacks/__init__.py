"""What the trainer does at Composer's events: learning rate, checkpoints and stopping, metrics.

In: Composer's state at an event. Out: rows, checkpoints, an update applied or dropped.
May import: what training.run may, and training.run itself; of training.run only trainer.py imports it.
"""
