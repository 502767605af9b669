"""`python -m edgeprune_cli` is `edgeprune`."""

import sys

from edgeprune_cli.app import main

if __name__ == "__main__":
    sys.exit(main())
