"""What a report says about an output, as figures."""
