"""From a source of images to predictions and what people look at."""
