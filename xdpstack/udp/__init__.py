"""The UDP layer."""
