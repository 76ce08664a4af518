"""`python -m minit2v`: the command line."""

import sys

from minit2v.cli import main

sys.exit(main())
