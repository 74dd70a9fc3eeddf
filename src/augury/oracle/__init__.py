"""Oracles: what is asked about activations, and what comes back."""

from __future__ import annotations

from augury.oracle.answers import Answer, Scan, Score, Unavailable
from augury.oracle.load import load_oracle
from augury.oracle.oracle import Oracle

__all__ = ["Answer", "Oracle", "Scan", "Score", "Unavailable", "load_oracle"]
