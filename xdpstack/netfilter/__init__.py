"""A place for the netfilter layer, which is not built yet: the rows of netfilter.* are where hooks go."""
