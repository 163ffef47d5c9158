"""The version of zmesh, for modules that may not import the package above them: metrics and the log."""

VERSION = "0.1.0"
