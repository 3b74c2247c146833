"""The same computation, faster on this machine."""
