"""One module for each command: its options, and what it does.

A command imports its parts when it runs. They take a second to load, and a mistyped option is told without them.
"""
