"""`python -m ptune`, the same as `ptune`."""

from ptune.cli import main

main()
