"""The BART encoder-decoder, its loss, and the checkpoint formats it is read from and written to."""
