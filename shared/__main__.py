"""`python -m shared`: the course's command line, see `shared/classroom/cli.py`."""

import sys

from shared.classroom.cli import main

if __name__ == "__main__":
    sys.exit(main())
