"""What a fine-tune changed: base, fine-tune and their difference read on the same tokens, and what sets them apart."""
