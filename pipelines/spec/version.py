"""The version of headrace. What builds the package reads it here."""

VERSION = "0.1.0"
