"""``python -m kspecpipe.cli`` is ``kspec``."""

import sys

from kspecpipe.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
