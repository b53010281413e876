"""pytest's entry into the checkout: thin on purpose. Options and fixtures live in editsafety/plugin/."""

pytest_plugins = ["pytester"]
