"""A detector behind HTTP: for programs on a line, and a page for people."""
