"""``python -m ad_dinov3`` is ``ad-dinov3``; torchrun starts it this way."""

from ad_dinov3.cli import main

main()
