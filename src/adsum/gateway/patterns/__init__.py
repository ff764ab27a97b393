"""Host patterns, regular expressions and path normalization, with the meaning that they have at gateways."""
