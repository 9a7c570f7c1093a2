"""The command line, and the one-machine stack that ``consulta up`` starts."""
