"""Bench: how far an oracle's answers can be trusted, beside its controls."""
