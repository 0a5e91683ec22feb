"""`python -m keras_popup` is `keras-popup`."""

import sys

from keras_popup.cli import main

if __name__ == "__main__":
    sys.exit(main())
