"""Python starts with this where the fake CUDA runtime is: what torch cannot do on a device that computes nothing.

No kernel computes, so every result is zeros. For floats that does not matter; a few operations on integers decide
what a program does next (the length of a message, whether two values agree), and are done on the host.
"""

import importlib.abc
import importlib.util
import sys


class _WithTorch(importlib.abc.MetaPathFinder):
    """Calls `integers.register` when torch has been imported, and not before: most processes never import it."""

    def find_spec(self, name, path, target=None):
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("torch")
        load = spec.loader.exec_module

        def load_and_register(module):
            load(module)
            import integers

            integers.register()
            # cuDNN's convolutions, of images, ask the library for a plan, which the fake has not.
            module.backends.cudnn.enabled = False

        spec.loader.exec_module = load_and_register
        return spec


sys.meta_path.insert(0, _WithTorch())
