"""WARP-LCA sparse-coding front-ends for robust image classifiers.

Importing the package makes its models known to timm, ``timm.create_model("warplca_resnet18")``. timm itself takes
seconds to import, so that is done once timm is there: at once if it is imported already, else when it will be.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence

__version__ = "0.1.0"


class _RegisterAfterTimm(importlib.abc.MetaPathFinder):
    """Lets timm be imported as ever, and imports ``warplca.models``, which registers the models, right after."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find timm by the finders that come later, once; every other module is left to them."""
        if fullname != "timm":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: types.ModuleType) -> None:
                execute(module)
                importlib.import_module("warplca.models")

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


if "timm" in sys.modules:
    importlib.import_module("warplca.models")
else:
    sys.meta_path.insert(0, _RegisterAfterTimm())
