"""``python -m licquant``."""

from licquant.commands.app import main

main()
