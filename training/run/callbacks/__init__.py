"""What the trainer does at Composer's events: learning rate, checkpoints and stopping, metrics."""
