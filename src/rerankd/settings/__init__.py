"""Settings: one table, and the sources that its values come from.

A value comes from a command-line flag, else from the environment (``RERANKD_`` + the name in capitals), else from
``rerankd.toml``, else from the default. Nothing else in the package reads settings from the environment.

=============  ==================================================================================
``table``      every row: name, type, default, bounds, sentence
``values``     one raw value to the type and within the bounds of its row, or an error in one line
``sources``    flags, environment and file, each value with the place that it came from
=============  ==================================================================================
"""

from rerankd.settings.sources import ENVIRONMENT_PREFIX, FILE_NAME, load_settings
from rerankd.settings.table import RENAMED, ArmSettings, ExperimentSettings, ModelSettings, Settings, fields_of

__all__ = [
    "ENVIRONMENT_PREFIX",
    "FILE_NAME",
    "RENAMED",
    "ArmSettings",
    "ExperimentSettings",
    "ModelSettings",
    "Settings",
    "fields_of",
    "load_settings",
]
