# Generated from chapters/; edit the chapters, not this file.
"""`python -m minitransformer` is the command `minitransformer`."""

from minitransformer.cli import main

raise SystemExit(main())
