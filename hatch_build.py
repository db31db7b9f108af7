"""Hatchling's build hook: wheels have the compiled kernels; without a compiler they are pure Python."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))

from build_kernels import LIBRARY, BuildError, build


class KernelBuildHook(BuildHookInterface):
    """Runs for wheels, editable ones included; source distributions have the sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        try:
            build()
        except BuildError as error:
            self.app.display_warning(f"No kernels in this wheel, the native engine will run on torch alone: {error}")
            return
        build_data["artifacts"].append(str(LIBRARY.relative_to(self.root)))
        build_data["pure_python"] = False
        # No Python ABI: the library is loaded by ctypes.
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
