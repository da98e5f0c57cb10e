"""The exceptions of ptune, one tree.

    PtuneError
    ├── ConfigError      an option or a line of a configuration file
    ├── DataError        a data file: names the file and the row
    ├── BackboneError    the pretrained model: not found, not supported, incomplete
    ├── AdapterError     an adapter folder: missing, damaged, for another backbone
    ├── TrainingError    a run that cannot go on, such as a loss that is not a number
    ├── OutputError      something that cannot be written: no permission, disk full
    └── HubError         something that cannot be published on the Hub: no token, no network

Every message names the thing and its value, says what was expected, and what
to do about it. The command line shows the message alone and exits with 2.
"""


class PtuneError(Exception):
    """Base of everything that ptune raises on purpose."""


class ConfigError(PtuneError, ValueError):
    """An option, or a key of a configuration file, is wrong."""


class DataError(PtuneError, ValueError):
    """A data file, or a row of it, cannot be used."""


class BackboneError(PtuneError):
    """A backbone is missing, unsupported or incomplete."""


class AdapterError(PtuneError):
    """An adapter folder is missing, damaged, or belongs to another backbone."""


class TrainingError(PtuneError):
    """A training run cannot go on."""


class OutputError(PtuneError, OSError):
    """A file cannot be written. What stood there before is still whole."""


class HubError(PtuneError):
    """An adapter cannot be published on the Hub."""
