"""The version of ptune."""

__version__ = "0.1.0"
