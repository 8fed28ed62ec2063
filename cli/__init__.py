"""The command line. The server's commands (serve, journal, init) come through the entry-point group trunkline.commands."""

from ._main import main as main
