"""Protocols, runs, tables and figures."""
