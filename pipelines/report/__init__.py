"""What a report says of an output, as figures."""
