"""The one source of configuration: validated, frozen sections with a line of doc per field.

A config is made of the defaults of its sections, a YAML file (`--config`), `--set dotted.key=value`
and the named options of a command, in this order. Unknown or ill-typed keys are one-line errors
that name the key, the value got and what is possible. Ciphers are named by string: this package
knows none.
"""
