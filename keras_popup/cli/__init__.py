"""The command line. Thin: flags are made from the configurations, work is done by other folders."""

from keras_popup.cli.main import main

__all__ = ["main"]
