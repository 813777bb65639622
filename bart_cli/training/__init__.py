"""The training loop for pre-training and fine-tuning, with optimizers, checkpoints and resume."""
