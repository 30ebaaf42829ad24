"""The tests use the plugin that the package ships, also from a tree that is not installed."""

pytest_plugins = ["pytester", "xdpstack.testing.plugin"]
