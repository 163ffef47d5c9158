"""Which zmesh this is, for whoever may not import the package that stands above it: metrics and the log."""

VERSION = "0.1.0"
