"""Use cases: the order of steps. Rules are in core, technology is behind the ports."""
