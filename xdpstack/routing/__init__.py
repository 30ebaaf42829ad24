"""The routing layer: for this host, to forward, or to drop; next hop and source address of what this host sends.

`semantics.py` is the definition: tables and a flow in, a verdict out. `tables.py` compiles the tables from a snapshot of
what Linux says, `layer.py` has the contract. See docs/stages/routing.md.
"""
