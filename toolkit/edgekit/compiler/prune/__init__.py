"""Takes channels, attention heads and hidden units out of a trained network, with everything that depends on them."""
