"""``python -m licquant``."""

from licquant.cli import main

main()
