"""Decoding: from source ids to hypotheses, exactly as Hugging Face's `generate` finds them."""
