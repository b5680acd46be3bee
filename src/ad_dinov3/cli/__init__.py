"""The command line: one function per command, heavy imports inside the functions, the only place that prints."""

from ad_dinov3.cli.app import main as main
