"""A privileged process that makes sockets and attaches programs for clients without privileges, within a policy."""
