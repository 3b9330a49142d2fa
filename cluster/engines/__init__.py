"""Models and the engines that answer for them."""
