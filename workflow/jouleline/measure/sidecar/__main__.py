"""The sidecar's program: `python -m jouleline.measure.sidecar`, or this file started as a script.

As a script it finds the package by the place of this file. So `client` can start it without PYTHONPATH and without
the current folder. A module there with the name of one of ours, or of Python's, would end the sidecar.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # First in the path for this one import, to get this package. Then last, so that it hides no other module.
    sys.path.insert(0, str(Path(__file__).absolute().parents[3]))
    import jouleline  # noqa: F401

    sys.path.append(sys.path.pop(0))
    from jouleline.measure.sidecar.process import main_and_exit

    main_and_exit()
