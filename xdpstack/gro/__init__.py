"""The GRO layer."""
