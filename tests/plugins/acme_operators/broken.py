"""An operator whose module cannot be imported."""

raise ImportError("acme_operators.broken needs libacme, which is not here")
