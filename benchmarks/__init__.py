"""What is fast, measured: every published figure comes from a command in this folder."""
