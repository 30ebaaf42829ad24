"""Test tools for users: namespaces, veth pairs, packet checks."""
