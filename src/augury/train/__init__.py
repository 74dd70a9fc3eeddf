"""Training: recipe, batches, step, loop, checkpoints."""
