"""A place for the GRO layer, which is not built yet: gro.rx and gro.tx are where hooks go."""
