"""One loop for pre-training and fine-tuning, and what it stands on."""
