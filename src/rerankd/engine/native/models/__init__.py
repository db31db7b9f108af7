"""Networks that the native engine runs, one file a family."""
