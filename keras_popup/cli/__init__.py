"""The command line. It is thin: flags are made from the configurations, and other folders do the work."""

from keras_popup.cli.main import main

__all__ = ["main"]
