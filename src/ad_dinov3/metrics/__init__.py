"""Numbers that judge anomaly maps: numpy arrays in, numbers out."""
