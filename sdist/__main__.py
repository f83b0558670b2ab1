"""python -m sdist"""

import sys

from .cli import main

sys.exit(main())
