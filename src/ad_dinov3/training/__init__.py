"""Training a head on frozen features."""
