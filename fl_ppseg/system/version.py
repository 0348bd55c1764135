"""The program's version, for whoever needs it without the library of `fl_ppseg` itself."""

from typing import Final

VERSION: Final = "0.1.0"
