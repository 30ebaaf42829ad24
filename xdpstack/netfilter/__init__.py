"""The netfilter layer."""
