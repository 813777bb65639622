"""The BART encoder-decoder, its loss, and reading and writing its checkpoint formats."""
