"""Many images: the driver, its results, and what is written for people to look at."""
