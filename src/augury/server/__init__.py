"""Oracles over HTTP: one thread that runs the model, and a service around it that lets in, waits and tells."""
