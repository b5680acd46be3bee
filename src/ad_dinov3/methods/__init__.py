"""One paper, one file: features in, scores out."""
