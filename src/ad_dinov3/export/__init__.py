"""From a model to one file that runs without torch, proven equal before it is handed over."""
