"""Use cases: what is done after what. Rules are in core, technology is behind the ports."""
