"""The matrix takes several minutes for each version of Autosubmit: only `make test-versions` collects it."""

from __future__ import annotations

import os

collect_ignore = [] if "VERSIONS_WRITE" in os.environ else ["test_matrix.py"]
