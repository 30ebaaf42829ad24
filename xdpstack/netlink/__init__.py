"""The mirror of what Linux knows: links, addresses, routes, rules, neighbours."""
