"""The command line's part that needs the server; found through the entry-point group trunkline.commands."""
