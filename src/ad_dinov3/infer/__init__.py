"""One image: what opens a model, what scores with it, and what is decided."""
