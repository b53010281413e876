"""`python -m editsafety` is the `editsafety` command."""

from editsafety.cli import main

if __name__ == "__main__":
    main()
