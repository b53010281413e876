"""pytest's entry into the checkout: thin on purpose. Options and fixtures live in editsafety/plugin/__init__.py."""

pytest_plugins = ["pytester"]
