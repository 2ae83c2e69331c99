"""The sidecar's program: `python -m jouleline.measure.sidecar`, or this file started as a script.

As a script it finds the package by the file's own place. So `client` can start it without PYTHONPATH and without the
current folder: a module there that has the name of one of ours, or of Python's, would end the sidecar.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # First for this one import, so that it is this package; last from then on, so that it hides no other module.
    sys.path.insert(0, str(Path(__file__).absolute().parents[3]))
    import jouleline  # noqa: F401

    sys.path.append(sys.path.pop(0))
    from jouleline.measure.sidecar.process import main_and_exit

    main_and_exit()
