"""Frozen encoders: pixels in, tokens out."""
