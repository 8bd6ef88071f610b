"""`python -m enclap_hf` is the `enclap` command."""

import sys

from .cli import main

sys.exit(main())
