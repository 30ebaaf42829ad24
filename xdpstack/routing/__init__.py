"""The routing layer."""
